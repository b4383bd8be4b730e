"""In which memory format a network is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from nni_spos.modules.agreement import Outputs
from nni_spos.modules.memory_format import choose_format, logits_of
from nni_spos.modules.subnet import covering_subnets
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


def find_layout(
    network: nn.Module,
    channels_last: bool,
    device: torch.device,
    input_shape: Sequence[int],
    networks: Iterable[nn.Module] | None = None,
) -> torch.memory_format:
    """Return channels_last if it is wanted, and if every choice is trained right with it.

    Parameters
    ----------
    network, channels_last, device
        As for `choose_layout`.
    input_shape
        Of one image: (channels, height, width).
    networks
        What is run, in the place of copies of the network: see `nni_spos.modules.memory_format`.

    Warns
    -----
    FormatWarning
        The network's own code does not allow it, see `nni_spos.modules.memory_format`.
    """
    layout = choose_layout(network, channels_last, device)
    if layout is torch.channels_last:
        networks = covering_subnets(network) if networks is None else networks
        return choose_format(networks, input_shape, train_once)
    return layout


def train_once(network: nn.Module, images: Tensor) -> Outputs:
    """Return logits and gradients of one batch, and logits of a scoring.

    Without dropout, whose values follow the memory format, and without the statistics of two
    images, which would make much of rounding.
    """
    network.train().zero_grad(set_to_none=True)
    for module in network.modules():
        if isinstance(module, _DropoutNd | _BatchNorm):
            module.eval()
    logits = network(images)
    if logits.ndim == 2 and logits.shape[1] > 1:
        targets = torch.arange(len(images), device=images.device) % logits.shape[1]
        functional.cross_entropy(logits, targets).backward()
    else:  # of one output the cross entropy is always 0
        logits.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    return [logits.detach(), *gradients, *logits_of(network, images)]


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
