"""A model space of layers one behind the other, some with choices as arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import nni
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.mutables import MutableConv2d, MutableLinear

IMAGE = (3, 6, 6)


class Chain(ModelSpace):
    """Builds its layers within the constructor, as NNI wants it."""

    def __init__(self, build_layers: Callable[[], Iterable[nn.Module]]):
        super().__init__()
        self.layers = nn.Sequential(*build_layers())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def width(label: str = "width", choices: Sequence[int] = (4, 6, 10)) -> Any:
    return nni.choice(label, list(choices))


def conv(inputs: Any, outputs: Any, kernel_size: Any = 1, **arguments: Any) -> nn.Module:
    """Return a convolution that, with stride 1, keeps the size of the image."""
    return MutableConv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, **arguments)


def head(channels: Any) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), MutableLinear(channels, 5)]
