"""The multiply-adds that PyTorch itself sees in a run, in layers and outside of them."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass
class Products:
    """What was computed in one place.

    Parameters
    ----------
    macs
        Multiply-adds of the operators that can be counted.
    uncounted
        Names of operators that do multiply-adds, or may do, and cannot be counted.
    """

    macs: int = 0
    uncounted: set[str] = field(default_factory=set)


_MORE_FORMULAS: dict[str, Callable[..., int]] = {
    "mv": lambda matrix, vector: matrix.numel(),
    "addmv": lambda _, matrix, vector: matrix.numel(),
    "dot": lambda one, other: one.numel(),
    "vdot": lambda one, other: one.numel(),
    "addr": lambda _, one, other: one.numel() * other.numel(),
    "addbmm": lambda _, one, other: one.numel() * other.shape[-1],
    "_scaled_dot_product_flash_attention_for_cpu": lambda query, key, value, *_: (
        math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    ),
}
"""Multiply-adds by operator, of those that PyTorch's own registry leaves out."""

_UNCOUNTED = re.compile(
    r".*(conv(olution|_|\d)|mm(_|$)|matmul|lstm|gru|rnn|attention|transformer).*"
    r"|(?!_?upsample).*linear.*"
    r"|_?(cdist|pdist|euclidean_dist).*"
    r"|_?linalg_(?!vector_norm|norm|cross|diagonal|check_errors|_powsum).*"
    r"|_?(cholesky|lu_|triangular_solve|spsolve|geqrf|orgqr|ormqr|inverse|matrix_exp|fft_).*"
)
"""Names of operators that do multiply-adds. What is made of others is seen as these."""

_KNOWN_NAMESPACES = {"aten", "prim", "prims", "profiler"}


class ProductCounter(TorchDispatchMode):
    """Adds what is computed, while it is entered, to `current`.

    PyTorch's ``FlopCounterMode`` knows neither products with vectors nor the in-place forms, and
    passes over what it does not know.
    """

    supports_higher_order_operators = True  # or those would fail while it is entered

    def __init__(self) -> None:
        super().__init__()
        self.current = Products()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        formula = _formula(func)
        if formula is None and isinstance(func, OpOverload):
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        if formula is not None:
            self.current.macs += formula(args, kwargs, output)
        elif _is_uncounted(func):
            self.current.uncounted.add(str(getattr(func, "_overloadpacket", func)))
        return output


def _formula(func: Any) -> Callable[[Any, dict[str, Any], Any], int] | None:
    """Return what counts an operator: PyTorch's own formula, for its in-place form too, or ours."""
    packet = getattr(func, "_overloadpacket", func)
    if packet not in flop_registry and isinstance(func, OpOverload) and func.namespace == "aten":
        name = packet.__name__.removesuffix("_")
        if name in _MORE_FORMULAS:
            return lambda args, kwargs, _: _MORE_FORMULAS[name](*args)
        packet = getattr(torch.ops.aten, name, packet) if name != packet.__name__ else packet
    if packet not in flop_registry:
        return None
    flops = flop_registry[packet]
    return lambda args, kwargs, output: flops(*args, **kwargs, out_val=output) // 2


@functools.cache
def _is_uncounted(func: Any) -> bool:
    if not isinstance(func, OpOverload) or func.namespace not in _KNOWN_NAMESPACES:
        return True
    return _UNCOUNTED.fullmatch(func._overloadpacket.__name__) is not None
