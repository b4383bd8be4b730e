"""Changing the class of a layer in place, so that nothing that was done to it is lost.

A layer may be held by a list, a function or a hook as well, and its tensors may be tied to those
of other layers, loaded, frozen or drawn by the space's constructor. A new layer in its place would
have none of that.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from nni.mutable import frozen_context
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nni_spos.errors import SpaceError

HOOKS = tuple(name for name in vars(nn.Module()) if "hook" in name)
"""Attributes of every module that hold its hooks."""
FEW = 32
"""Values of which nothing can be said about how they were drawn."""
SURPRISE = 8.0
"""Standard errors by which spreads and means of values from one distribution hardly ever differ."""


@dataclass(frozen=True)
class Grown:
    """A tensor of a layer that is larger in the supernet than it was.

    Parameters
    ----------
    name
        Of the tensor, in the layer as it was.
    before
        The tensor as it was.
    is_drawn
        Whether its values are not those that a new layer has: the space gave them.
    """

    name: str
    before: Tensor
    is_drawn: bool


def become(old: nn.Module, new: nn.Module, memo: dict[Any, Any]) -> None:
    """Make a layer what another one is, in place; its hooks and tensors stay as far as they fit.

    Parameters
    ----------
    old
        The layer, which others may hold.
    new
        The layer that it becomes, a `nni_spos.mutables.SlicedOperation`; it must not be used
        afterwards.
    memo
        Tensors that have grown, by id of what they were: layers that are tied stay so.

    Raises
    ------
    SpaceError
        Its tensors are computed from others, or tied to one of another size.
    """
    _refuse_computed(old, new)
    for given in old.parameters():
        if given.is_floating_point():
            new.to(given.dtype)  # what is new, such as clipping values, counts as the others do
            break
    grown: dict[str, Grown] = {}
    replaced = set()
    for own, fresh in [*new.named_parameters(), *new.named_buffers()]:
        plain = new.plain_name(own)
        given = getattr(old, plain, None)
        if given is None:
            continue
        if own != plain:  # one of several in the place of one
            replaced.add(plain)
            fresh.requires_grad_(given.requires_grad)
            kept = _take(given, fresh)
        else:
            kept = _grow(own, given, fresh, memo)
            tensors = new._parameters if own in new._parameters else new._buffers
            tensors[own] = kept
        if kept is None or kept.shape != given.shape:
            grown[own] = Grown(plain, given, given._version > fresh._version)
    for kind in ("_parameters", "_buffers", "_modules"):  # what the space has added to the layer
        mine, others = getattr(old, kind), getattr(new, kind)
        others.update({x: mine[x] for x in mine if x not in {*others, *replaced}})
    added = {name: value for name, value in vars(old).items() if name not in vars(new)}
    hooks = {name: vars(old)[name] for name in HOOKS if name in vars(old)}
    vars(old).update({**added, **vars(new), **hooks, "training": old.training})
    old.__class__ = type(new)
    old.grown = grown


def _refuse_computed(old: nn.Module, new: nn.Module) -> None:
    names = [name for name, value in new._parameters.items() if value is not None]
    computed = [name for name in names if name not in old._parameters and hasattr(old, name)]
    if parametrize.is_parametrized(old) or computed:
        name = (computed or [*old.parametrizations])[0]
        raise SpaceError(
            f"its '{name}' is computed from other tensors (weight_norm, spectral_norm, pruning or "
            "the like), of which a path cannot use a part. Use the layer without it, or without "
            "choices as arguments."
        )


def _take(given: Tensor, fresh: Tensor) -> Tensor | None:
    """Copy the values of a tensor to one of several that stand in for it, if its size is right."""
    if given.shape != fresh.shape:
        return None
    with torch.no_grad():
        return fresh.copy_(given)


def _grow(name: str, given: Tensor, fresh: Tensor, memo: dict[Any, Any]) -> Tensor:
    """Return what a tensor becomes: itself, if its size is right."""
    if given.shape == fresh.shape:
        return given
    key = ("grown", id(given))
    if key not in memo:
        if isinstance(fresh, nn.Parameter):
            fresh.requires_grad_(given.requires_grad)
        memo[key] = fresh, given  # which keeps the id its own
    found: Tensor = memo[key][0]
    if found.shape != fresh.shape:
        raise SpaceError(
            f"its '{name}' is tied to one that is {tuple(found.shape)} at its largest, and its own "
            f"is {tuple(fresh.shape)}. Let both follow the same choices."
        )
    return found


def grown_tensors(space: nn.Module) -> Iterator[tuple[str, str, nn.Module, Grown]]:
    """Yield layer names, names of grown tensors, the layers, and what the tensors were."""
    for layer_name, layer in space.named_modules():
        for name, grown in getattr(layer, "grown", {}).items():
            yield layer_name, name, layer, grown


def take_initial_values(
    space: nn.Module, anew: nn.Module | None, largest: nn.Module | None
) -> None:
    """Give grown tensors the values that the constructor of a space draws.

    Parameters
    ----------
    space
        Its layers with choices have become larger ones.
    anew
        The same space as its constructor builds it once more; None if it cannot.
    largest
        The same with the largest choices.

    Raises
    ------
    SpaceError
        A tensor was changed after the space was built, or its values cannot be found out.
    """
    for layer_name, name, layer, grown in grown_tensors(space):
        tensor, before = layer.get_tensor(name), grown.before
        if tensor.is_meta:
            continue
        again, drawn = (_find(one, layer_name, grown.name) for one in (anew, largest))
        is_unchanged = again is not None and _look_alike(before, again)
        with torch.no_grad():
            if _is_constant(before):
                tensor.fill_(before.flatten()[0])
            elif is_unchanged and drawn is not None and drawn.shape == tensor.shape:
                tensor.copy_(drawn)
            elif anew is None:
                raise SpaceError(
                    f"layer '{layer_name}': what its '{grown.name}' begins with at its largest is "
                    "not known, since the constructor of the space cannot be called again with the "
                    "arguments that it got. Let it be, with arguments that copy.deepcopy can copy."
                )
            elif not is_unchanged or grown.is_drawn:
                raise SpaceError(
                    f"layer '{layer_name}': the values of its '{grown.name}' were set, but with "
                    f"the largest choices it has {tuple(tensor.shape)} values, not "
                    f"{tuple(before.shape)}, and what those are is not known. Set them in the "
                    "constructor of the space, for any choices."
                )


def rebuild(space: ModelSpace, choices: frozen_context) -> ModelSpace | None:
    """Return a space as its constructor builds it once more, with other choices.

    Parameters
    ----------
    space
        It is not changed. Its constructor gets the arguments that it got before.
    choices
        ``nni.nas.space.model_context(path)`` for the network of a path alone, and
        ``nni.mutable.frozen_context(path)`` for all of the space, at the sizes of a path. Labels
        and choices are not checked.

    Returns
    -------
    New weights, as the constructor draws them; None if it fails.
    """
    try:
        arguments, named = copy.deepcopy((space.trace_args, space.trace_kwargs))
        with choices:
            return type(space)(*arguments, **named)
    except Exception:  # a user's code
        return None


def _is_constant(tensor: Tensor) -> bool:
    """Whether values were set to one number; of a single one only 0 and 1 are taken for that."""
    if tensor.numel() == 0:
        return False
    first = tensor.flatten()[0]
    return bool((tensor == first).all()) and (tensor.numel() > 1 or float(first) in (0.0, 1.0))


def _look_alike(one: Tensor, other: Tensor) -> bool:
    """Whether a tensor may have been drawn as another one was, and was not changed since.

    A copy of a space has tensors that were never changed, so fewer changes say nothing.
    """
    if one.shape != other.shape or one._version > other._version:
        return False
    first, second = one.detach().double(), other.detach().double()
    if torch.equal(first, second):
        return True
    if one.numel() < FEW:
        return True
    spreads, error = [float(x.std()) for x in (first, second)], SURPRISE / math.sqrt(one.numel())
    if min(spreads) == 0 or abs(math.log(spreads[0] / spreads[1])) > error:
        return False
    return float((first.mean() - second.mean()).abs()) <= 2 * error * max(spreads)


def _find(space: nn.Module | None, layer: str, name: str) -> Tensor | None:
    try:
        found = getattr(space.get_submodule(layer), name) if space is not None else None
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None
