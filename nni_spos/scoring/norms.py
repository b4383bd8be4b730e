"""BatchNorm layers on the current path of a supernet, sliced or not."""

from __future__ import annotations

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nni_spos.mutables import SlicedOperation


def tracks_statistics(norm: _BatchNorm) -> bool:
    """Whether a BatchNorm has statistics of its own."""
    if isinstance(norm, SlicedOperation):
        return bool(norm.init_arguments["track_running_stats"])
    return bool(norm.track_running_stats)


def affine_of(norm: _BatchNorm) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias of a BatchNorm on the current path."""
    if isinstance(norm, SlicedOperation):
        tensors = {norm.plain_name(name): tensor for name, tensor in norm.tensors().items()}
        return tensors.get("weight"), tensors.get("bias")
    return norm.weight, norm.bias
