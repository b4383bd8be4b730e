"""Modules made by ``torch.jit.script`` or ``torch.jit.trace``, as layers that can be observed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ScriptedLayer(nn.Module):
    """Stands in for a scripted module, which takes no hooks.

    Parameters
    ----------
    scripted
        It is copied, not changed.
    copies
        What stands for tensors of it that other modules may share, by their id.
    """

    def __init__(self, scripted: Any, copies: Mapping[int, Tensor]):
        super().__init__()
        for name, parameter in scripted.named_parameters():
            copied: Any = copies[id(parameter)]
            self.register_parameter(name.replace(".", "_"), copied)
        self.title: str = scripted.original_name
        # In a list, or it would be a sub-module that cannot be observed either.
        self._run = [copy.deepcopy(scripted).eval()]

    @property
    def scripted(self) -> Any:
        """The scripted module, which has the attributes of the one that it was made of."""
        return self._run[0]

    def forward(self, *inputs: Any, **named: Any) -> Any:
        # As it is written: what PyTorch makes of several operators cannot be counted.
        with torch.jit.optimized_execution(False):
            return self.scripted(*inputs, **named)


def scripted_modules(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the scripted modules of a network, not those inside of others."""
    if isinstance(module, torch.jit.ScriptModule):
        yield module
        return
    for child in module.children():
        yield from scripted_modules(child)
