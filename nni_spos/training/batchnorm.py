"""BatchNorm over the images of all processes, on CPUs as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode


class SynchronisedBatchNorm(TorchFunctionMode):
    """Within this context BatchNorm in training mode normalises the batch of all processes.

    It takes the place of `torch.nn.functional.batch_norm`, which all layers call: also those with
    channels as choices, which PyTorch's ``SyncBatchNorm.convert_sync_batchnorm`` would replace by
    plain ones. On GPUs the arithmetic is PyTorch's, which has none for CPUs.
    """

    def __torch_function__(
        self,
        function: Any,
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        if function is functional.batch_norm:
            return _batch_norm(*arguments, **options)
        return function(*arguments, **options)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return functional.batch_norm(
            x, running_mean, running_var, weight, bias, False, momentum, eps
        )
    if x.is_cuda:
        group = torch.distributed.group.WORLD
        size = torch.distributed.get_world_size()
        return SyncBatchNorm.apply(
            x, weight, bias, running_mean, running_var, eps, momentum, group, size
        )
    return _BatchNormOfAll.apply(x, weight, bias, running_mean, running_var, momentum, eps)


class _BatchNormOfAll(Function):
    """BatchNorm of shape (N, C, ...) with the statistics of all processes, for CPUs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        mean, variance, count = _moments_of_all(x)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = variance * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants; what flows through them is added below.
        d_x, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([d_weight, d_bias])
        torch.distributed.all_reduce(sums)
        scale = torch.rsqrt(variance + ctx.eps)
        outer = scale if weight is None else scale * weight
        shape = (1, -1) + (1,) * (x.dim() - 2)
        slope = (outer * scale * sums[0] / ctx.count).view(shape)
        offset = (outer * sums[1] / ctx.count).view(shape)
        through = (x - mean.view(shape)).mul_(slope).add_(offset)
        d_x = d_x.sub_(through.to(d_x.dtype))
        # Those of the other processes are added when gradients are averaged.
        _, needs_weight, needs_bias, *others = ctx.needs_input_grad
        return (
            d_x,
            d_weight if needs_weight else None,
            d_bias if needs_bias else None,
            *(None for _ in others),
        )


def _moments_of_all(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return mean, biased variance and number of the values of each channel in all processes."""
    x = x if x.dtype == torch.float64 else x.float()
    others = [dimension for dimension in range(x.dim()) if dimension != 1]
    variance, mean = torch.var_mean(x, others, correction=0)
    own = torch.cat([mean, variance, mean.new_tensor([x.numel() // x.shape[1]])])
    found = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, own)
    means, variances, counts = torch.stack(found).split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    # Not from sums of squares, whose difference has few digits left.
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, int(total)
