"""Whether two runs of networks computed the same, but for the order of sums."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Outputs = Sequence[Tensor | None]
RunOfType = Callable[[torch.dtype, int], Outputs]
"""Computes with numbers of a type, global random generators seeded with a number."""

ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-8}
"""By how much, relative to the largest value, two orders of the same sums may differ."""


def differ(
    run: RunOfType, other: RunOfType, expected: Outputs | None = None, found: Outputs | None = None
) -> bool:
    """Whether two runs compute different things, and not only at random.

    Parameters
    ----------
    run, other
        What is compared.
    expected, found
        What they give in float32 with seed 0, if that is known.
    """
    expected = run(torch.float32, 0) if expected is None else expected
    found = other(torch.float32, 0) if found is None else found
    if agree(expected, found, torch.float32):
        return False
    # Random values are drawn in the order of the memory, or of the units that draw them.
    if not agree(expected, run(torch.float32, 1), torch.float32):
        return False
    # Statistics of few values and levels of quantized ones make much of a last digit. With more
    # digits there is next to nothing to make much of.
    with contextlib.suppress(Exception):  # a network that takes only float32
        return not agree(run(torch.float64, 0), other(torch.float64, 0), torch.float64)
    return True


def agree(expected: Outputs, found: Outputs, dtype: torch.dtype) -> bool:
    """Whether all values are the same but for rounding in numbers of a type; NaN equals NaN."""
    scales = [_largest(x) if x is not None and x.numel() else 0.0 for x in expected]
    # Of a gradient that should be zero nothing but rounding is left.
    least = max(1e-3 * max(scales, default=0.0), 1e-12)
    triples = zip(expected, found, scales, strict=True)
    return all(_is_close(one, x, ROUNDING[dtype] * max(scale, least)) for one, x, scale in triples)


def _largest(x: Tensor) -> float:
    """Return the largest magnitude of the values that are finite."""
    return float(x.nan_to_num(0.0, 0.0, 0.0).abs().max())


def _is_close(one: Tensor | None, other: Tensor | None, tolerance: float) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape:
        return False
    return bool(torch.isclose(one, other, rtol=0.0, atol=tolerance, equal_nan=True).all())
