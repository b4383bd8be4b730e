"""Files as others write them, and what their networks compute, written down without our classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TINY = ((1, 24), (2, 32))
"""Units of each stage and their outputs, of a space that takes moments."""

TINY_ARGUMENTS = {"stage_repeats": (1, 2), "stage_channels": (24, 32), "last_channels": 32}
"""What makes ``shufflenet_small`` that space."""

SMALL = ((2, 32), (4, 64), (2, 128))
"""The same of ``shufflenet_small``; its last convolution has 256 outputs."""

PAPER = ((4, 64), (4, 160), (8, 320), (4, 640))
"""The same of the authors' space."""

BLOCKS = (("pdp", 3), ("pdp", 5), ("pdp", 7), ("dpdpdp", 3))
"""Convolutions of a block, point-wise or depth-wise, and size of its kernels, by its number."""


def authors_checkpoint(
    stages: Sequence[tuple[int, int]] = TINY, *, last: int = 32, classes: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Return what the authors' file holds, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        deviation = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        weights[f"module.{name}.weight"] = deviation * torch.randn(shape, generator=generator)

    def norm(name: str, channels: int) -> None:
        weights[f"module.{name}.running_mean"] = torch.randn(channels, generator=generator) / 10
        weights[f"module.{name}.running_var"] = torch.rand(channels, generator=generator) + 0.5
        weights[f"module.{name}.num_batches_tracked"] = torch.tensor(150_000)

    conv("first_conv.0", 16, 3, 3, 3)
    norm("first_conv.1", 16)
    for unit, (before, after, stride) in enumerate(units_of(stages)):
        kept = before // 2 if stride == 1 else before
        for block, (sequence, kernel) in enumerate(BLOCKS):
            place = f"features.{unit}.{block}"
            width = kept
            for number, (kind, at, behind) in enumerate(places_of(sequence)):
                if kind == "d":
                    conv(f"{place}.branch_main.{at}", width, 1, kernel, kernel)
                else:
                    made = after - kept if number == len(sequence) - 1 else after // 2
                    conv(f"{place}.branch_main.{at}", made, width, 1, 1)
                    width = made
                norm(f"{place}.branch_main.{behind}", width)
            if stride == 2:
                conv(f"{place}.branch_proj.0", kept, 1, kernel, kernel)
                norm(f"{place}.branch_proj.1", kept)
                conv(f"{place}.branch_proj.2", kept, kept, 1, 1)
                norm(f"{place}.branch_proj.3", kept)
    conv("conv_last.0", last, stages[-1][1], 1, 1)
    norm("conv_last.1", last)
    weights["module.classifier.0.weight"] = torch.randn(classes, last, generator=generator) / 4
    return {"state_dict": weights, "iteration": 150_000}


def units_of(stages: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield channels before and after each unit, and its stride."""
    before = 16
    for repeats, after in stages:
        for position in range(repeats):
            yield before, after, 1 if position else 2
            before = after


def places_of(sequence: str) -> Iterator[tuple[str, int, int]]:
    """Yield the kind of each convolution, and the places of it and of its BatchNorm.

    There is a ReLU behind those that are point-wise.
    """
    place = 0
    for kind in sequence:
        yield kind, place, place + 1
        place += 3 if kind == "p" else 2


def authors_logits(
    content: Mapping[str, Any],
    blocks: Sequence[int],
    images: Tensor,
    stages: Sequence[tuple[int, int]] = TINY,
    *,
    stem_stride: int = 1,
) -> Tensor:
    """Return what the authors' code computes on the path with these blocks, in evaluation mode."""
    weights = {k.removeprefix("module."): v for k, v in content["state_dict"].items()}

    def layer(x: Tensor, conv: str, norm: str, *, stride: int = 1, relu: bool = True) -> Tensor:
        kernel = weights[f"{conv}.weight"]
        groups = x.shape[1] if kernel.shape[1] == 1 and kernel.shape[2] > 1 else 1
        x = functional.conv2d(x, kernel, None, stride, kernel.shape[2] // 2, 1, groups)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = (x - mean.view(-1, 1, 1)) / torch.sqrt(variance.view(-1, 1, 1) + 1e-5)
        return x.relu() if relu else x

    def main(x: Tensor, place: str, block: int, stride: int) -> Tensor:
        for kind, at, behind in places_of(BLOCKS[block][0]):
            names = f"{place}.{at}", f"{place}.{behind}"
            x = layer(x, *names, stride=stride if kind == "d" else 1, relu=kind == "p")
            stride = 1 if kind == "d" else stride
        return x

    x = layer(images, "first_conv.0", "first_conv.1", stride=stem_stride)
    for unit, (_, _, stride) in enumerate(units_of(stages)):
        place = f"features.{unit}.{blocks[unit]}"
        if stride == 2:
            passed = layer(
                x, f"{place}.branch_proj.0", f"{place}.branch_proj.1", stride=2, relu=False
            )
            passed = layer(passed, f"{place}.branch_proj.2", f"{place}.branch_proj.3")
            seen = x
        else:
            passed, seen = x[:, ::2], x[:, 1::2]
        x = torch.cat([passed, main(seen, f"{place}.branch_main", blocks[unit], stride)], 1)
    x = layer(x, "conv_last.0", "conv_last.1")
    return x.mean((2, 3)) @ weights["classifier.0.weight"].T
