"""Sort channels, so that narrow paths keep those that matter most."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from nni_spos.conversion.plan import ConversionPlan, Width, tensor_slots

Scores = dict[str, Tensor]
"""By label: how much each set of channels of a width matters, shape (sets,), float64."""


def score_channels(network: nn.Module, plan: ConversionPlan, importance: str) -> Scores:
    """Return how much the channels of each width matter.

    Parameters
    ----------
    network
        With trained weights.
    plan
        What of it may be chosen.
    importance
        ``l2``: the squared length of all weights that make a channel, as in Li et al.
        ``batchnorm``: the squared scale of the BatchNorms behind it, as in Liu et al.; where there
        are none, the length of the weights.

    References
    ----------
    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017.
    """
    layers = dict(network.named_modules())
    scores: Scores = {}
    for label, width in plan.widths.items():
        norms = [x for x in width.makes if isinstance(layers[x], nn.BatchNorm2d)]
        has_scale = any(layers[x].weight is not None for x in norms)
        by_norm = importance == "batchnorm" and has_scale
        makers = [x for x in width.makes if x not in norms]
        names = norms if by_norm else makers
        if by_norm and width.is_parted:  # some parts may have no norm of their own
            names = [*norms, *(x for x in makers if not _has_norm(width, x, norms))]
        scores[label] = sum_over_sets(
            (
                (_squared_norms(layers[x].weight), _own_sets(width, x, "outputs"))
                for x in names
                if layers[x].weight is not None
            ),
            width.sets,
        )
    return scores


def score_by_effects(
    network: nn.Module, plan: ConversionPlan, effects: Mapping[str, Tensor]
) -> Scores:
    """Return the sum of the effects of all weights that make a channel.

    Parameters
    ----------
    network, plan
        As of `score_channels`.
    effects
        Of each weight, by name of the parameter, see `nni_spos.conversion.taylor.weight_effects`.
    """
    layers = dict(network.named_modules())
    return {
        label: sum_over_sets(
            (
                (effects[f"{maker}.{name}"], _own_sets(width, maker, "outputs"))
                for maker in width.makes
                for name, tensor, _ in tensor_slots(layers[maker])
                if isinstance(tensor, nn.Parameter)
            ),
            width.sets,
        )
        for label, width in plan.widths.items()
    }


def _squared_norms(weight: Tensor) -> Tensor:
    """Return the squared L2 norm of what each channel has, in float64."""
    rows = weight.detach().reshape(len(weight), -1)
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square().cpu()


def _has_norm(width: Width, name: str, norms: Iterable[str]) -> bool:
    """Whether a BatchNorm has the parts that a layer makes."""
    own = set(width.sequences[name, "outputs"])
    return any(own <= set(width.sequences[norm, "outputs"]) for norm in norms)


def sum_over_sets(tensors: Iterable[tuple[Tensor, Tensor]], sets: int) -> Tensor:
    """Return sums over all but the sets of channels in the first dimension of tensors.

    Parameters
    ----------
    tensors
        Each with the numbers of the sets that it has, in their order.
    sets
        How many sets there are.
    """
    total = torch.zeros(sets, dtype=torch.float64)
    for tensor, own in tensors:
        rows = tensor.reshape(len(own), -1).sum(1)
        total.index_add_(0, own, rows)
    return total


def sort_channels(network: nn.Module, plan: ConversionPlan, scores: Scores) -> None:
    """Bring the channels of a network into the order of their scores, the highest first.

    In place; the network computes what it did. Channels stay in their part.
    """
    layers = dict(network.named_modules())
    for label, width in plan.widths.items():
        order = _order(width, scores[label])
        for names, wanted in ((width.makes, "outputs"), (width.reads, "inputs")):
            for name in names:
                sets = _own_sets(width, name, wanted)
                for _, tensor, sides in tensor_slots(layers[name]):
                    for dim, side in enumerate(sides):
                        if side == wanted:
                            _reorder(tensor, dim, _moved(width, sets, order))


def _order(width: Width, scores: Tensor) -> Tensor:
    """Return the sets of all parts, of each part those with the highest scores first."""
    start, found = 0, []
    for size in width.kept[0]:
        own = scores[start : start + size]
        found.append(start + torch.argsort(own, descending=True, stable=True))
        start += size
    return torch.cat(found)


def _own_sets(width: Width, name: str, side: str) -> Tensor:
    """Return the numbers of the sets at a side of a layer, one after the other."""
    starts = [0, *itertools.accumulate(width.kept[0])]
    parts = width.sequences[name, side]
    return torch.cat([torch.arange(starts[part], starts[part + 1]) for part in parts])


def _moved(width: Width, sets: Tensor, order: Tensor) -> Tensor:
    """Return the places at a side of a layer from which its sets are to come.

    Parameters
    ----------
    width
        Its parts.
    sets
        At the side of the layer, one after the other.
    order
        In which the sets are to be, of all parts.
    """
    found, place = [], 0
    starts = [0, *itertools.accumulate(width.kept[0])]
    while place < len(sets):
        first = int(sets[place])
        size = width.kept[0][starts.index(first)]
        found.append(place + order[first : first + size] - first)
        place += size
    return torch.cat(found)


def _reorder(tensor: Tensor, dim: int, order: Tensor) -> None:
    """Reorder sets of places along a dimension of a tensor, in place."""
    each = tensor.shape[dim] // len(order)
    places = (order[:, None] * each + torch.arange(each)).reshape(-1).to(tensor.device)
    with torch.no_grad():
        tensor.copy_(tensor.index_select(dim, places))
