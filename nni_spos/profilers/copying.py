"""Copies of networks to run: on another device, their ties kept, whatever they hold."""

from __future__ import annotations

import copy
import functools
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from nni_spos.errors import CostError
from nni_spos.modules.copies import ModuleT, ValueCopies, copy_empty, copy_tensor
from nni_spos.profilers.scripted import ScriptedLayer, scripted_modules


def copy_network(network: ModuleT, device: str) -> ModuleT:
    """Return a copy of a network on a device; parameters that modules share stay shared.

    ``copy.deepcopy`` refuses tensors that were computed, such as the weights of PyTorch's older
    ``weight_norm``, and ``to("meta")`` makes two parameters of one that modules share.

    Parameters
    ----------
    network
        It is not changed.
    device
        ``meta``, for a copy without values, or ``cpu``.

    Raises
    ------
    CostError
        The network has lazy layers that did not run yet, or cannot be copied.
    """
    return _copy(network, device, _part_copies(network, device))


def copy_observable(network: ModuleT, device: str) -> ModuleT:
    """As `copy_network`, with layers that take hooks in the place of scripted ones.

    These have the parameters of the copy; what they run has some of its own, on the CPU.
    """
    memo = _part_copies(network, device)
    for scripted in scripted_modules(network):
        memo[id(scripted)] = ScriptedLayer(scripted, memo)
    return _copy(network, device, memo)


def _part_copies(network: nn.Module, device: str) -> dict[int, Any]:
    """Return copies of parameters, buffers and what is empty, one of each that modules share."""
    check_sizes(network)
    tensors = (*network.parameters(), *network.buffers())
    return copy_empty(network) | {id(x): copy_tensor(x, device) for x in tensors}


def _copy(network: ModuleT, device: str, memo: dict[int, Any]) -> ModuleT:
    try:
        return _deepcopy(network, dict(memo), device)
    except Exception:  # whatever copying what modules hold raises
        memo |= _uncopyable(network, memo, device)
    try:
        return _deepcopy(network, memo, device)
    except Exception as problem:
        text = " ".join(str(problem).split())
        raise CostError(
            f"the space cannot be copied ({type(problem).__name__}: {text:.200}). Keep what "
            "copy.deepcopy refuses out of its modules."
        ) from None


def check_sizes(network: nn.Module) -> None:
    """Refuse lazy layers, which have no sizes before they ran. Raises CostError."""
    for name, module in network.named_modules():
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(map(is_lazy, own)):
            kind = type(module).__name__
            raise CostError(
                f"layer '{name}' ({kind}): has no sizes before it has run. Use "
                f"nn.{kind.removeprefix('Lazy')} with the sizes of its input."
            )


def _deepcopy(value: Any, memo: dict[int, Any], device: str) -> Any:
    with ValueCopies(device):
        return copy.deepcopy(value, memo)


def _uncopyable(network: nn.Module, memo: dict[int, Any], device: str) -> dict[int, Any]:
    """Return what modules hold and cannot be copied, such as scripted functions: shared instead."""
    found = {}
    can_copy = functools.partial(_can_copy, memo=memo, device=device)
    for module in network.modules():
        if id(module) not in memo:
            for name, value in vars(module).items():
                if name != "_modules" and not can_copy(value):
                    found[id(value)] = value
    return found


def _can_copy(value: Any, memo: dict[int, Any], device: str) -> bool:
    try:
        _deepcopy(value, dict(memo), device)
    except Exception:
        return False
    return True
