"""The shadow of a tensor: which channel is at which of its places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_spos.conversion.channels import FIXED, ChannelIds


@dataclass(frozen=True)
class Shadow:
    """Channels at the places of a tensor.

    Parameters
    ----------
    channels
        Whole numbers, as many dimensions as the tensor has; of size 1 where all places are alike.
    is_signed
        Whether values can be negative.
    """

    channels: Tensor
    is_signed: bool = True

    @classmethod
    def fixed(cls, dims: int, dim: int, size: int) -> Shadow:
        """Return the shadow of a tensor whose channels all stay."""
        sizes = [1] * dims
        sizes[dim] = size
        return cls(torch.full(sizes, FIXED))

    @classmethod
    def of_vector(cls, channels: ChannelIds, dims: int, dim: int, is_signed: bool) -> Shadow:
        """Return the shadow of a tensor with these channels in one dimension."""
        sizes = [1] * dims
        sizes[dim] = len(channels)
        return cls(torch.from_numpy(channels).reshape(sizes), is_signed)

    def vector(self, dim: int) -> ChannelIds | None:
        """Return the channels along one dimension; None if they vary along another as well."""
        sizes = list(self.channels.shape)
        del sizes[dim]
        if any(size != 1 for size in sizes):
            return None
        return self.channels.reshape(-1).numpy()

    def varies(self, dims: Sequence[int]) -> bool:
        """Whether the channels differ along any of these dimensions."""
        return any(self.channels.shape[dim] != 1 for dim in dims)

    def expanded(self, shape: Sequence[int]) -> Tensor:
        """Return the channels at every place of a tensor of a shape."""
        return self.channels.expand(tuple(shape))

    def is_same(self, other: Shadow) -> bool:
        """Whether the same channels are at the same places."""
        return self.channels.shape == other.channels.shape and torch.equal(
            self.channels, other.channels
        )


def compress(channels: Tensor) -> Tensor:
    """Return channels with size 1 along every dimension in which they do not differ."""
    for dim, (size, stride) in enumerate(zip(channels.shape, channels.stride(), strict=True)):
        first = channels.narrow(dim, 0, 1) if size else channels
        if size > 1 and (stride == 0 or bool((channels == first).all())):
            channels = first
    return channels.contiguous()
