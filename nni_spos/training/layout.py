"""In which memory format a network is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from nni_spos.mutables import SlicedOperation
from nni_spos.mutables.convolution import pair

BLOCK = 16
"""Input channels that the CPU's convolutions handle at a time; with AVX2 it is half of it."""


def choose_layout(
    network: nn.Module, channels_last: bool, device: torch.device
) -> torch.memory_format:
    """Return channels_last if it is wanted, and if the gradients are right with it.

    On CPUs those of a 1x1 convolution with a stride and few input channels are not: oneDNN writes
    past the end of its buffer, which corrupts the memory of the process
    (https://github.com/uxlfoundation/oneDNN/issues/6035; PyTorch 2.14 has it).

    Parameters
    ----------
    network
        A supernet, of which every path counts, or a subnet.
    channels_last
        What is wanted.
    device
        Of the training.
    """
    if channels_last and not (device.type == "cpu" and any(map(_is_unsafe, _layers(network)))):
        return torch.channels_last
    return torch.contiguous_format


def _layers(network: nn.Module) -> Iterator[Mapping[str, Any]]:
    """Yield the arguments of every convolution, on every path."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if isinstance(module, SlicedOperation):
                yield from (module.part_at(sample).arguments for sample in module.samples())
            else:
                yield vars(module)


def _is_unsafe(layer: Mapping[str, Any]) -> bool:
    sizes, strides = pair(layer["kernel_size"]), pair(layer.get("stride", 1))
    is_whole = layer.get("groups", 1) == 1 and set(sizes) == {1}
    return is_whole and layer["in_channels"] < BLOCK and any(x > 1 for x in strides)
