"""Quantizers of weights and activations: round in the forward pass, pass gradients in the backward.

Plain functions of tensors, so that one float weight and one activation can be quantized to another
bit width in every step. The arithmetic is at least float32, also under ``torch.autocast``: float16
and bfloat16 come in as they are, float32 comes out, and the layer behind casts as it needs.
Only with 32 bits does a tensor pass through untouched, in its own dtype.

References
----------
Zhou et al., DoReFa-Net, arXiv 1606.06160 (weights).
Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, arXiv 1805.06085
(activations).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from nni_spos.errors import QuantizationError

FULL_PRECISION = 32
"""Number of bits that stands for: not quantized."""


def check_bits(bits: object) -> int:
    """Return `bits` if it is a bit width that weights and activations can have.

    Raises
    ------
    QuantizationError
        It is anything but a whole number from 1 to 8, or 32 for full precision.
    """
    if type(bits) is not int or not (1 <= bits <= 8 or bits == FULL_PRECISION):
        raise QuantizationError(
            f"bits must be a whole number from 1 to 8, or 32 for full precision, got {bits!r}."
        )
    return bits


def quantize_weight(weight: Tensor, bits: int) -> Tensor:
    """Quantize a weight to 2^bits levels that are symmetric around zero, which is not one of them.

    With t = tanh(w), its largest magnitude m in the tensor and n = 2^bits - 1, the levels are
    m (2q - n) / n for q = 0 .. n, and q = round(n (t / 2m + 1/2)). With one bit they are the mean
    magnitude of the tensor, for w >= 0, and its negative. Both scales count as constants in the
    backward pass, and rounding as the identity: the gradient g becomes g (1 - t^2), and stays g
    with one bit.

    Parameters
    ----------
    weight
        Any shape.
    bits
        1 to 8, or 32, which returns `weight` itself.

    Returns
    -------
    Tensor
        Shape and memory format of `weight`; all zeros if `weight` is.

    Raises
    ------
    QuantizationError
        Another bit width.
    """
    if check_bits(bits) == FULL_PRECISION:
        return weight
    weight = at_least_float32(weight)
    if bits == 1:
        return _StraightThrough.apply(weight, _round_to_signs)
    return _StraightThrough.apply(torch.tanh(weight), lambda t: _round_between_zero(t, bits))


def odd_integers(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return what `quantize_weight` returns as odd numbers and their scale.

    Parameters
    ----------
    weight
        Any shape.
    bits
        1 to 8.

    Returns
    -------
    values : Tensor, shape of `weight`
        From 1 - 2^bits to 2^bits - 1, of type int32.
    scale : Tensor, shape ()
        Half the distance of two levels.
    """
    weight = at_least_float32(weight.detach())
    if bits == 1:
        return torch.where(weight >= 0, 1, -1).int(), weight.abs().mean()
    t = torch.tanh(weight)
    step = 2 * t.abs().max() / (2**bits - 1)
    values = (t / step.clamp_min(torch.finfo(t.dtype).tiny)).sub_(0.5).round_().mul_(2).add_(1)
    return values.int(), step / 2


def quantize_activation(x: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Quantize an activation that is not negative to 2^bits levels from 0 to `clip`.

    With n = 2^bits - 1 the result is round(clamp(x, 0, clip) n / clip) clip / n, halves to even.
    The gradient g passes to `x` where 0 <= x < clip, and to `clip` where x >= clip.

    Parameters
    ----------
    x
        Any shape. What is negative becomes 0 and gets no gradient: for inputs behind a ReLU.
    clip
        Upper end of the levels, > 0, no dimensions; see `positive_clip`.
    bits
        1 to 8, or 32, which returns `x` itself.

    Returns
    -------
    Tensor
        Shape and memory format of `x`.

    Raises
    ------
    QuantizationError
        Another bit width, or a clip with dimensions.
    """
    if check_bits(bits) == FULL_PRECISION:
        return x
    _check_clip(clip)
    return _ClippedRound.apply(x, clip, 2**bits - 1)


def quantize_signed_activation(x: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Quantize an activation of both signs to 2^bits - 1 levels from -`clip` to `clip`.

    With n = 2^(bits - 1) - 1 the result is round(clamp(x, -clip, clip) n / clip) clip / n, halves
    to even; zero is a level. The gradient g passes to `x` where |x| < clip; the gradient of `clip`
    is the sum of g sign(x) elsewhere.

    Parameters
    ----------
    x
        Any shape.
    clip
        Upper end of the levels, > 0, no dimensions; see `positive_clip`.
    bits
        2 to 8, or 32, which returns `x` itself.

    Returns
    -------
    Tensor
        Shape and memory format of `x`.

    Raises
    ------
    QuantizationError
        Another bit width, or a clip with dimensions.
    """
    if check_bits(bits) == FULL_PRECISION:
        return x
    if bits == 1:
        raise QuantizationError(
            "bits of signed activations must be a whole number from 2 to 8, or 32 for full "
            "precision, got 1. Put a ReLU in front for 1 bit."
        )
    _check_clip(clip)
    return _SignedClippedRound.apply(x, clip, 2 ** (bits - 1) - 1)


def positive_clip(clip: Tensor, floor: float = 1e-3) -> Tensor:
    """Return a clip of at least `floor`, > 0.

    The gradient passes unchanged also where `floor` replaces the value, so that a clip which an
    optimizer took below it can come back.
    """
    return _StraightThrough.apply(clip, lambda value: value.clamp_min(floor))


class _StraightThrough(Function):
    """Apply a function that counts as the identity in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


# The two below keep the input rather than masks: a ReLU in front keeps the same tensor anyway.


class _ClippedRound(Function):
    """Round to the levels 0 .. n of the step clip / n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(x, clip)
        return _round_to_levels(at_least_float32(x), at_least_float32(clip), 0, n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, clip = (at_least_float32(tensor) for tensor in ctx.saved_tensors)
        clipped = torch.sub(x, clip)
        _keep_from_zero_up(gradient, clipped, out=clipped)
        d_clip = clipped.sum() if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, d_clip, None
        # Exact: g - g is 0, and g - 0 is g.
        d_x = torch.sub(gradient, clipped, out=clipped)
        return _keep_from_zero_up(d_x, x, out=d_x), d_clip, None


class _SignedClippedRound(Function):
    """Round to the levels -n .. n of the step clip / n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clip: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(x, clip)
        return _round_to_levels(at_least_float32(x), at_least_float32(clip), -n, n)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, clip = (at_least_float32(tensor) for tensor in ctx.saved_tensors)
        clipped = x.abs().sub_(clip)
        _keep_from_zero_up(gradient, clipped, out=clipped)
        d_clip = x.sign().mul_(clipped).sum() if ctx.needs_input_grad[1] else None
        return torch.sub(gradient, clipped, out=clipped), d_clip, None


def _round_to_levels(x: Tensor, clip: Tensor, low: int, high: int) -> Tensor:
    """Return `x` in whole steps of clip / high, of which there are `low` to `high`."""
    # Clamped after rounding, where the limits are whole numbers: a clamp between tensors is slow.
    # Not x / (clip / high), which misses halves in float32.
    return x.mul(high / clip).round_().clamp_(low, high).mul_(clip / high)


def _keep_from_zero_up(gradient: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Write to `out`, which may be one of the others, the gradient where x >= 0 and 0 elsewhere."""
    # The backward pass of a ReLU is one vectorized kernel; `torch.where` with a mask takes several
    # times as long on a CPU, and `clamp` would halve gradients at its limits. The threshold lies
    # just under zero, but is no subnormal number: processors may take those for zero.
    threshold = -torch.finfo(x.dtype).tiny
    return torch.ops.aten.threshold_backward.grad_input(gradient, x, threshold, grad_input=out)


def _round_to_signs(weight: Tensor) -> Tensor:
    """Return the mean magnitude where `weight` >= 0, and its negative elsewhere."""
    signs = weight.abs()
    mean = signs.mean()
    # Written as 1 and 0 into a tensor of floats: `torch.where` takes several times as long.
    return torch.ge(weight, 0, out=signs).sub_(0.5).mul_(2 * mean)


def _round_between_zero(t: Tensor, bits: int) -> Tensor:
    """Return `t` at odd multiples of half a step, the largest magnitude being the outermost."""
    if t.numel() == 0:
        return t.clone()
    step = 2 * t.abs().max() / (2**bits - 1)
    # round(v + n/2) - n/2 of the usual form, less a whole even number: halves still go up at 0.
    # The floor keeps 0 / 0 away from a tensor of zeros.
    v = t / step.clamp_min(torch.finfo(t.dtype).tiny)
    return v.sub_(0.5).round_().add_(0.5).mul_(step)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return the tensor, as float32 if it is of lower precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _check_clip(clip: Tensor) -> None:
    """Refuse clips that are not one number each for the whole activation."""
    if clip.dim() != 0:
        raise QuantizationError(
            f"clip must be a tensor without dimensions, got shape {tuple(clip.shape)}. "
            "Use one clip per layer and bit width."
        )
