"""Convolutions that take in the BatchNorm behind them, where nobody else sees what is between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nni_spos.mutables import SlicedOperation
from nni_spos.mutables.convolution import SlicedConv2d

Folding = tuple[Any, _BatchNorm | None]
"""A module of a Sequential, and the BatchNorm that is folded into it."""


def plan_folding(module: nn.Module) -> list[Folding]:
    """Return what a Sequential runs, with its foldable pairs; empty where there are none."""
    if type(module).forward is not nn.Sequential.forward:
        return []
    plan: list[Folding] = []
    for child in module.children():
        before = plan[-1] if plan else (None, None)
        if before[1] is None and _is_foldable(before[0], child):
            plan[-1] = before[0], child
        else:
            plan.append((child, None))
    return plan if any(norm is not None for _, norm in plan) else []


def _is_foldable(conv: nn.Module | None, norm: nn.Module) -> bool:
    is_conv = type(conv) is nn.Conv2d or type(conv) is SlicedConv2d
    is_norm = isinstance(norm, _BatchNorm) and tracks_statistics(norm)
    return is_conv and is_norm and not any(_has_hooks(module) for module in (conv, norm))


def _has_hooks(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def tracks_statistics(norm: _BatchNorm) -> bool:
    """Whether a BatchNorm has statistics of its own."""
    if isinstance(norm, SlicedOperation):
        return bool(norm.init_arguments["track_running_stats"])
    return bool(norm.track_running_stats)


def operands_of(
    conv: nn.Conv2d, x: Tensor
) -> tuple[Tensor, Tensor, Tensor | None, Mapping[str, Any]]:
    """Return input, weight, bias and arguments of a convolution on the current path."""
    if isinstance(conv, SlicedConv2d):
        tensors, arguments = conv.tensors(), conv.part.arguments
        return *conv.operands(x, tensors, arguments), tensors.get("bias"), arguments
    return x, conv.weight, conv.bias, vars(conv)


def affine_of(norm: _BatchNorm) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias of a BatchNorm on the current path."""
    if isinstance(norm, SlicedOperation):
        tensors = {norm.plain_name(name): tensor for name, tensor in norm.tensors().items()}
        return tensors.get("weight"), tensors.get("bias")
    return norm.weight, norm.bias
