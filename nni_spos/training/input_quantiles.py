"""How large the inputs of quantized layers are, before a network is trained."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nni_spos.data import ImageData
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.memory_format import kept_buffers, kept_generators
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Path, PathSpace

Look = Callable[[Quantized, Tensor], None]

LEAST_RUNS = 8
"""Batches that are looked at; of a supernet as many paths, and one for each choice of a label."""


def quantized_inputs(network: nn.Module) -> dict[str, Quantized]:
    """Return the layers that quantize their inputs, on some path at least, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, Quantized) and module.activation_tensors()
    }


@torch.no_grad()
def measure_inputs(
    network: nn.Module,
    data: ImageData,
    batch_size: int,
    shares: Collection[float],
    seed: int = 0,
) -> dict[str, dict[float, Tensor]]:
    """Return quantiles of the magnitudes that each layer is to quantize.

    The network runs on batches of augmented training images, each on another path of a supernet,
    which together have every choice. Weights have the bits of the path; inputs are looked at and
    left as they are, so that what one layer rounds says nothing about the next. BatchNorm
    normalises the batch. Statistics, modes and random generators are afterwards as they were.

    Parameters
    ----------
    network
        A supernet, or the network of a path, on its device.
    data
        Its training images are used.
    batch_size
        Images in a batch, of all processes of a training together.
    shares
        Of each quantile: how many of the values of a batch are at most as large, from 0 to 1.
    seed
        Of the order and the augmentation of the images.

    Returns
    -------
    dict[str, dict[float, Tensor]]
        Layer and share to the mean of its batches' quantiles, shape (), the same in all processes.
        One that is 0 or not finite is left out, as are all of a layer that nothing ran through.
    """
    layers = quantized_inputs(network)
    paths = _paths(network)
    sums = torch.zeros(len(layers), len(shares) + 1, dtype=torch.float64)
    rows = dict(zip(layers.values(), sums, strict=True))

    def look(layer: Quantized, x: Tensor) -> None:
        magnitudes = x.abs()
        found = [float(quantile(magnitudes, share)) for share in shares]
        rows[layer].add_(torch.tensor([*found, 1.0]))

    tensor = next(network.parameters())
    units = choice_units(network)
    with kept_generators(tensor.device), kept_buffers(network), _looking(network, look):
        images = _images(data, batch_size, seed)
        for i in range(max(LEAST_RUNS, len(paths))):
            set_path(units, paths[i % len(paths)])
            network(next(images).to(tensor.device, tensor.dtype))
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        sums = sums.to(tensor.device)
        torch.distributed.all_reduce(sums)  # each process has other images
    means = (sums[:, :-1] / sums[:, -1:]).to(tensor.device)
    return {
        name: {share: x for share, x in zip(shares, row, strict=True) if 0 < float(x) < math.inf}
        for name, row in zip(layers, means, strict=True)
    }


def quantile(x: Tensor, share: float) -> Tensor:
    """Return the least value that a share of all values does not exceed.

    Parameters
    ----------
    x
        Any shape, not empty, of any size; `torch.quantile` takes at most 16 million values.
    share
        From 0 to 1.

    Returns
    -------
    Tensor
        Shape ().

    Examples
    --------
    >>> float(quantile(torch.arange(10.0), 0.9)), float(quantile(torch.arange(10.0), 0.91))
    (8.0, 9.0)
    """
    values = x.detach().flatten()
    # 0.9 * 10 is 9 here, but a product may lie just above the whole number that it should be.
    place = math.ceil(share * values.numel() * (1 - 1e-12))
    return values.kthvalue(max(1, place)).values


def _paths(network: nn.Module) -> list[Path]:
    """Return paths on which every choice is, or the one of a network without choices."""
    is_supernet = bool(choice_units(network))
    if not is_supernet or not isinstance(network, ModelSpace):
        return [{}]
    return PathSpace.from_model_space(network).covering()


def _images(data: ImageData, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of training images, epoch after epoch."""
    epoch = 0
    while True:
        for images, _ in data.train_loader(batch_size, seed, epoch):
            yield images
        epoch += 1


@contextlib.contextmanager
def _looking(network: nn.Module, look: Look) -> Iterator[None]:
    """Let layers show their inputs instead of rounding them, and norms alone be in training."""
    modes: Mapping[nn.Module, bool] = {x: x.training for x in network.modules()}
    layers = quantized_inputs(network)
    try:
        for module in modes:
            module.training = isinstance(module, _BatchNorm)
        for layer in layers.values():
            layer.quantize = _shown(layer, look)  # type: ignore[assignment,method-assign]
        yield
    finally:
        for layer in layers.values():
            if "quantize" in vars(layer):
                del layer.quantize
        for module, mode in modes.items():
            module.training = mode


def _shown(layer: Quantized, look: Look) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    def quantize(x: Tensor, learned: Tensor | None, bits: int) -> Tensor:
        look(layer, x)
        return x

    return quantize
