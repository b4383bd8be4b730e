"""Sort channels, so that narrow paths keep those that matter most."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from nni_spos.conversion.plan import Plan, tensor_slots

Scores = dict[str, Tensor]
"""By label: how much each set of channels of a width matters, shape (sets,), float64."""


def score_channels(network: nn.Module, plan: Plan, importance: str) -> Scores:
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
        names = norms if by_norm else [x for x in width.makes if x not in norms]
        scores[label] = sum_over_sets(
            ((layers[x].weight, 0) for x in names if layers[x].weight is not None),
            width.sets,
        )
    return scores


def sum_over_sets(tensors: Iterable[tuple[Tensor, int]], sets: int) -> Tensor:
    """Return sums of squares over all but the sets of channels in one dimension of each tensor."""
    total = torch.zeros(sets, dtype=torch.float64)
    for tensor, dim in tensors:
        rows = tensor.detach().transpose(0, dim).double().cpu().square()
        total += rows.reshape(sets, -1).sum(1)
    return total


def sort_channels(network: nn.Module, plan: Plan, scores: Scores) -> None:
    """Bring the channels of a network into the order of their scores, the highest first.

    In place; the network computes what it did.
    """
    layers = dict(network.named_modules())
    for label, width in plan.widths.items():
        order = torch.argsort(scores[label], descending=True, stable=True)
        for names, wanted in ((width.makes, "outputs"), (width.reads, "inputs")):
            for name in names:
                for _, tensor, sides in tensor_slots(layers[name]):
                    for dim, side in enumerate(sides):
                        if side == wanted:
                            _reorder(tensor, dim, order)


def _reorder(tensor: Tensor, dim: int, order: Tensor) -> None:
    """Reorder sets of places along a dimension of a tensor, in place."""
    each = tensor.shape[dim] // len(order)
    places = (order[:, None] * each + torch.arange(each)).reshape(-1).to(tensor.device)
    with torch.no_grad():
        tensor.copy_(tensor.index_select(dim, places))
