"""What a network keeps from one forward pass to the next, observed while it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_KNOWN = ("torch.nn.modules.", "nni_spos.", "nni.")
"""Modules whose classes are defined here keep nothing but BatchNorm's statistics."""


class SideEffects:
    """Compares the modules of a network, and PyTorch's generator, with what they were.

    Parameters
    ----------
    network
        As it is now.
    """

    def __init__(self, network: nn.Module):
        self._modules = [
            (name, module)
            for name, module in network.named_modules()
            if not f"{type(module).__module__}.".startswith(_KNOWN)
        ]
        self._before = [_snapshot(module) for _, module in self._modules]
        self._generator = torch.get_rng_state()

    def find(self) -> str | None:
        """Return in words what has changed, or None."""
        for (name, module), before in zip(self._modules, self._before, strict=True):
            after = _snapshot(module)
            if after != before:
                changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
                where = f"'{name}'" if name else "the space"
                return f"{where} changes its '{changed[0]}' in the forward pass"
        if not torch.equal(torch.get_rng_state(), self._generator):
            return "it draws random numbers in evaluation"
        return None


def _snapshot(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    values = {**vars(module), **module._buffers, **module._parameters}
    return {name: _mark(value) for name, value in values.items() if name not in _OURS}


_OURS = ("forward", "_sampled", "_part", "_parts")


def _mark(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, list | dict | set):
        items = value.values() if isinstance(value, dict) else value
        return id(value), tuple(map(id, items))
    return (id(value),)
