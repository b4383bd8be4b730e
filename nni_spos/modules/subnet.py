"""One path's network out of a supernet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from nni.mutable import Mutable
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableModule,
    ParametrizedModule,
    Repeat,
)
from torch import nn

from nni_spos.modules.active_path import choice_units
from nni_spos.modules.copies import copy_own_empty, copy_values
from nni_spos.mutables.adoption import HOOKS
from nni_spos.mutables.repeat import depth_at
from nni_spos.mutables.sliced import SlicedOperation
from nni_spos.path import Choice, PathSpace


def extract_subnet(supernet: ModelSpace, path: Mapping[str, Choice]) -> nn.Module:
    """Return the network of a path with a copy of the supernet's weights and statistics.

    Parameters
    ----------
    supernet
        A model space with weights, mutated by a one-shot strategy or not; it is not changed.
    path
        Label to choice, for every label of the space.

    Raises
    ------
    PathError
        The path is not one of the space.
    """
    path = PathSpace.from_model_space(supernet).validate(path)
    return _copy_at(supernet, path, {})


def covering_subnets(network: nn.Module) -> Iterator[nn.Module]:
    """Yield subnets of a supernet that together have every choice; of another network a copy."""
    if not isinstance(network, ModelSpace) or not network.simplify():
        yield copy_values(network)
        return
    for path in PathSpace.from_model_space(network).covering():
        yield extract_subnet(network, path)


@contextlib.contextmanager
def without_path(supernet: nn.Module) -> Iterator[None]:
    """Let no path be set in a supernet, so that a copy of it that still uses its units fails.

    A function or a bound method that a module keeps is not copied with it: what it refers to
    stays a part of the supernet.
    """
    names = ("_part", "_sampled")
    units = choice_units(supernet)
    paths = [{name: vars(unit)[name] for name in names if name in vars(unit)} for unit in units]
    for unit, path in zip(units, paths, strict=True):
        vars(unit).update(dict.fromkeys(path))
    try:
        yield
    finally:
        for unit, path in zip(units, paths, strict=True):
            vars(unit).update(path)


def _copy_at(module: nn.Module, path: Mapping[str, Choice], memo: dict[Any, Any]) -> nn.Module:
    """Return a copy of a module in which each mutable is the network of the path.

    NNI's own freeze copies a module once for each module around it, all its choices included,
    and shares storage with the supernet where nothing is a choice: recalibration would write
    into it. Here what a path does not use is never copied, since `memo` says what stands for it.
    """
    if id(module) in memo:  # a layer that is used twice stays one layer
        return memo[id(module)]
    if isinstance(module, Mutable) and type(module).freeze is LayerChoice.freeze:
        module.validate(path)
        copied = _copy_at(module[module.choice.freeze(path)], path, memo)
        _take_hooks(module, copied)
    elif isinstance(module, Mutable) and type(module).freeze is Repeat.freeze:
        blocks = list(module.blocks)[: depth_at(module, path)]
        copied = nn.Sequential(*(_copy_at(block, path, memo) for block in blocks))
        copied.training = module.training
        _take_hooks(module, copied)
    elif isinstance(module, SlicedOperation):
        copied = module.freeze(path)  # copies already
        _tie(module, path, copied, memo)
    elif isinstance(module, Mutable) and not _is_as_it_is(module):
        copied = copy_values(module.freeze(path))
    else:
        for child in module.children():
            _copy_at(child, path, memo)
        memo |= copy_own_empty(module)
        copied = copy_values(module, memo)
    memo[id(module)] = copied
    return copied


def _take_hooks(unit: nn.Module, chosen: nn.Module) -> None:
    """Let the layer of a path have the hooks of its unit, as where NNI builds it alone."""
    for name in HOOKS:
        if isinstance(hooks := vars(unit)[name], dict):
            vars(chosen)[name] = type(hooks)({**vars(chosen)[name], **hooks})


def _tie(
    layer: SlicedOperation, path: Mapping[str, Choice], copied: nn.Module, memo: dict[Any, Any]
) -> None:
    """Let the layer of a path share those parameters that its layer of the supernet shares."""
    for own, part in layer.part_at(path).slices.items():
        tensor, name = layer.get_tensor(own), layer.plain_name(own)
        if isinstance(tensor, nn.Parameter):
            # A whole tensor under the key that copy.deepcopy has for it, in layers without choices.
            key = (id(tensor), str(part)) if part else id(tensor)
            setattr(copied, name, memo.setdefault(key, copied.get_parameter(name)))


def _is_as_it_is(module: nn.Module) -> bool:
    """Return whether a mutable module has no choices but those of the modules in it."""
    freeze = type(module).freeze
    return freeze in (MutableModule.freeze, ParametrizedModule.freeze) and not module.mutables
