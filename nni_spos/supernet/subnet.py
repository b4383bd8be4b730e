"""One path's network out of a supernet."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from nni.mutable import Mutable
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule
from torch import nn

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
        yield copy.deepcopy(network)
        return
    for path in PathSpace.from_model_space(network).covering():
        yield extract_subnet(network, path)


def _copy_at(module: nn.Module, path: Mapping[str, Choice], memo: dict[int, Any]) -> nn.Module:
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
    elif isinstance(module, SlicedOperation):
        copied = module.freeze(path)  # copies already
    elif isinstance(module, Mutable) and not _is_container(module):
        copied = copy.deepcopy(module.freeze(path))
    else:
        for child in module.children():
            _copy_at(child, path, memo)
        copied = copy.deepcopy(module, memo)
    memo[id(module)] = copied
    return copied


def _is_container(module: nn.Module) -> bool:
    """Return whether a mutable module is no more than what the modules in it are."""
    return type(module).freeze is MutableModule.freeze and not module.mutables
