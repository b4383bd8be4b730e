"""Copies of modules whatever tensors they hold."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def copy_values(network: ModuleT, memo: dict[Any, Any] | None = None) -> ModuleT:
    """Return what ``copy.deepcopy`` returns, computed tensors as values."""
    with ValueCopies():
        return copy.deepcopy(network, memo)


def copy_empty(network: nn.Module) -> dict[int, Any]:
    """Return copies of the empty dictionaries and sets that modules hold, by their id.

    A module has about ten for hooks, and ``copy.deepcopy``, whose memo they are for, takes longer
    for them than for all else.
    """
    return {
        k: copied for module in network.modules() for k, copied in copy_own_empty(module).items()
    }


def copy_own_empty(module: nn.Module) -> dict[int, Any]:
    """As `copy_empty`, of what a module itself holds."""
    return {
        id(value): type(value)()
        for value in vars(module).values()
        if type(value) in (OrderedDict, set) and not value
    }


class ValueCopies(TorchFunctionMode):
    """Lets ``copy.deepcopy`` copy tensors that were computed, which it refuses, as values.

    Parameters
    ----------
    device
        Where the copies of tensors lie that are no parameters; None: where each was.
    """

    def __init__(self, device: str | None = None):
        super().__init__()
        self._device = device

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and (self._device or not args[0].is_leaf):
            return copy_tensor(args[0], self._device)
        return func(*args, **(kwargs or {}))


def copy_tensor(tensor: Tensor, device: str | None) -> Tensor:
    """Return a tensor's values, a parameter if it is one, on a device or where they are."""
    copied = tensor.detach().to(device or tensor.device, copy=True)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(copied, tensor.requires_grad)
    return copied
