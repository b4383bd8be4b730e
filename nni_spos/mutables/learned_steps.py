"""Quantization to whole multiples of a learned step: the affine integer grid, its zero point at 0.

What comes out is an integer times a step, so that integer kernels and files of integers compute
the same. As in `nni_spos.mutables.quantizers`, the arithmetic is at least float32.

References
----------
Esser et al., Learned Step Size Quantization, ICLR 2020, arXiv 1902.08153.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nni_spos.mutables.quantizers import FULL_PRECISION, at_least_float32, check_bits, positive_clip

LEAST_STEP = 1e-8
"""What no step is below: of a channel whose weights are all zero, or where an optimizer went."""
LEAST_FACTOR = 1e-2
"""What no factor of a step is below."""


def integer_range(bits: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest integer of a bit width.

    >>> integer_range(4, True), integer_range(4, False)
    ((-8, 7), (0, 15))
    """
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def first_step(mean: Tensor, largest: Tensor, bits: int, signed: bool) -> Tensor:
    """Return the step to begin with, from mean and largest magnitude of what is quantized.

    It is that of the paper, twice the mean over the root of the highest integer, but no more than
    holds the largest value: at 8 bits the paper's would leave most levels unused.
    """
    _, high = integer_range(bits, signed)
    return torch.minimum(2 * mean / high**0.5, largest / high).clamp_min(LEAST_STEP)


def weight_steps(weight: Tensor, factor: Tensor, bits: int) -> Tensor:
    """Return the step of each output channel: a learned factor times that to begin with.

    Parameters
    ----------
    weight
        Shape (out_channels, ...).
    factor
        Learned, shape (out_channels,). A step of SGD moves the product as it would move a
        parameter that held the step itself.
    bits
        2 to 8.

    Returns
    -------
    Tensor
        Shape (out_channels,), each above 0.
    """
    rows = at_least_float32(weight.detach()).abs().flatten(1)
    first = first_step(rows.mean(1), rows.amax(1), bits, True)
    return _Scaled.apply(first, positive_clip(at_least_float32(factor), LEAST_FACTOR))


def activation_step(step: Tensor, initial_clip: float, bits: int, signed: bool) -> Tensor:
    """Return the step of an activation, shape (), above 0; 0 stands for one that was never set.

    Then `initial_clip` is the highest level.
    """
    _, high = integer_range(bits, signed)
    step = at_least_float32(step)
    return positive_clip(torch.where(step == 0, initial_clip / high, step), LEAST_STEP)


def quantize_to_steps(x: Tensor, step: Tensor, bits: int, signed: bool) -> Tensor:
    """Quantize to the integers of a bit width, times a step.

    The result is clamp(round(x / step), low, high) step, halves to even. The gradient g passes to
    `x` where the integer is within the range. That of `step` is the sum of g times the integer,
    less x / step where it is within the range; it is divided by the root of the highest integer
    and of the number of values, as in the paper: of a channel of weights, of one image.

    Parameters
    ----------
    x
        Any shape.
    step
        Above 0; shape () for all values, or (x.shape[0],) for one step a row.
    bits
        1 to 8, or 32, which returns `x` itself.
    signed
        Whether the integers are -2^(bits - 1) to 2^(bits - 1) - 1, for which 2 bits is the least;
        else they are 0 to 2^bits - 1.

    Returns
    -------
    Tensor
        Shape and memory format of `x`.

    Raises
    ------
    QuantizationError
        Another bit width.
    """
    if check_bits(bits) == FULL_PRECISION:
        return x
    return _LearnedSteps.apply(x, step, *integer_range(bits, signed))


class _Scaled(Function):
    """Multiply a factor; its gradient is that of the product, over what it was multiplied with."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(first)
        return first * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (first,) = ctx.saved_tensors
        return None, gradient / first


class _LearnedSteps(Function):
    """Round to the integers `low` .. `high`, times a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.range = low, high
        x, step = at_least_float32(x), _by_row(at_least_float32(step), x)
        # Divided, as ONNX does: a product with 1 / step can fall to the other side of a half.
        return x.div(step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, step = (at_least_float32(tensor) for tensor in ctx.saved_tensors)
        low, high = ctx.range
        position = x.div(_by_row(step, x))
        whole = position.round()
        within = (whole >= low) & (whole <= high)
        d_x = gradient * within if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return d_x, None, None, None
        error = whole.clamp_(low, high).sub_(position.mul_(within)).mul_(gradient)
        d_step = error.flatten(1).sum(1) if step.dim() else error.sum()
        number = x[0].numel() if x.dim() else 1
        return d_x, d_step * (high * max(number, 1)) ** -0.5, None, None


def _by_row(step: Tensor, x: Tensor) -> Tensor:
    return step.view(-1, *[1] * (x.dim() - 1)) if step.dim() else step
