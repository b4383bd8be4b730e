"""Small networks that are put together at random, of what people do in theirs.

What a network has is drawn from its number, so each can be built again, in any context of NNI.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import nni
import torch
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
)
from torch import Tensor, nn

from nni_spos.mutables import QuantConv2d, bits_choice

CHANNELS = 4
SIDE_EFFECTS = ("counts", "remembers")


def conv_block(kernel: int = 3, inplace: bool = False) -> nn.Sequential:
    """A block that keeps channels and size."""
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(inplace=inplace),
    )


class Parallel(nn.Module):
    """Adds what two modules make of the same input, of which one may change it in place."""

    def __init__(self, one: nn.Module, other: nn.Module):
        super().__init__()
        self.one = one
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x)


class InPlace(nn.Module):
    """Changes its input, and returns it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(1.25).add_(0.125)


class Counts(nn.Module):
    """Keeps what the next call depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.1 * (self.calls % 3))


class Remembers(nn.Module):
    """Keeps a running mean in a buffer of its own, in every mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.mul_(0.5).add_(0.5 * x.detach().mean())
        return x + self.seen


class NoisyInTraining(nn.Module):
    """Draws random numbers in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 0.1 * torch.randn(())) if self.training else x


class Scale(nn.Module):
    """Multiplies by a parameter for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((CHANNELS, 1, 1), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Backwards(nn.Module):
    """Calls its layers one by one, the last one first."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            x = layer(x)
        return x


class Listed(nn.Module):
    """Calls its layers by a plain list."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.listed = list(layers)
        for number, layer in enumerate(layers):
            self.add_module(f"layer{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.listed:
            x = layer(x)
        return x


class Product(nn.Module):
    """Does a product of matrices outside of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(CHANNELS) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,cd->ndhw", x, self.weight)


class UnknownProduct(nn.Module):
    """Computes what cannot be counted."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.ifft2(torch.fft.fft2(x)).real


class AsksForValues(nn.Module):
    """Takes a branch by the values of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.1 if bool(x.mean() > -1e6) else x


class RandomNetwork(ModelSpace):
    """The network of a number; `features` says what it has."""

    def __init__(self, number: int):
        super().__init__()
        self._random = random.Random(number)
        self.features: set[str] = set()
        self._labels = 0
        self._convs: list[nn.Conv2d] = []
        self.stem = nn.Conv2d(1, CHANNELS, 3, stride=2, padding=1)
        self.body = self._sequence(3)
        self.after = self._part() if self._is("a part behind the body") else nn.Identity()
        self.norm = nn.BatchNorm2d(CHANNELS) if self._is("a norm of the space") else None
        self.twice = self._unit() if self._is("a unit called twice") else None
        width = self._width() if self._is("channels") else CHANNELS
        if self._is("channels through a Sequential"):
            self.wide = nn.Sequential(
                MutableConv2d(CHANNELS, width, 1), MutableBatchNorm2d(width), nn.ReLU()
            )
        else:
            self.wide = MutableConv2d(CHANNELS, width, 3, padding=1, bias=False)
        self.head = MutableLinear(width, 10)
        self._tie()
        self._prepare()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.norm is not None:
            x = self.norm(x)
        x = self.body(x)
        if self.norm is not None and "a norm called twice" in self.features:
            x = self.norm(x)
        if self.twice is not None:
            x = self.twice(self.twice(x))
        if "a body called twice" in self.features:
            x = self.body(x)
        x = self.after(x)
        return self.head(self.wide(x).mean((2, 3)))

    def _is(self, feature: str, chance: float = 0.3) -> bool:
        found = self._random.random() < chance
        if found:
            self.features.add(feature)
        return found

    def _pick(self, options: dict[str, Callable[[], nn.Module]]) -> nn.Module:
        rare = (*SIDE_EFFECTS, "in place beside another", "an unknown product")
        weights = [1 if name in rare else 4 for name in options]
        (name,) = self._random.choices(list(options), weights)
        self.features.add(name)
        return options[name]()

    def _width(self):
        return nni.choice("width", [2, 3, 6])

    def _label(self) -> str:
        self._labels += 1
        if self._labels > 1 and self._is("a label used again", 0.15):
            return "unit1"
        return f"unit{self._labels}"

    def _unit(self, depth: int = 0) -> nn.Module:
        layers = {"conv": self._block(3, self._is("ReLU in place")), "skip": nn.Identity()}
        if self._is("a unit in a unit", 0.15) and depth == 0:
            layers["nested"] = nn.Sequential(self._unit(1), conv_block(1))
        elif self._is("a choice with a side effect", 0.1):
            layers["nested"] = Remembers()
        else:
            layers["nested"] = conv_block(5)
        return LayerChoice(layers, label=self._label())

    def _part(self) -> nn.Module:
        return self._pick(
            {
                "a unit": self._unit,
                "a block": self._block,
                "in place": InPlace,
                "counts": Counts,
                "remembers": Remembers,
                "noise in training": NoisyInTraining,
                "a parameter of its own": Scale,
                "a branch on values": AsksForValues,
                "dropout": lambda: nn.Dropout(0.5),
                "units in parallel": lambda: Parallel(self._unit(), self._unit()),
                "in place beside another": lambda: Parallel(InPlace(), conv_block(1)),
                "one by one, backwards": lambda: Backwards(self._unit(), conv_block(1)),
                "by a plain list": lambda: Listed(self._unit(), conv_block(1), self._unit()),
                "bits": self._quantized,
                "a product outside of layers": Product,
                "an unknown product": UnknownProduct,
            }
        )

    def _quantized(self) -> nn.Module:
        bits = bits_choice("bits", [(2, 4), (4, 4), (32, 32)])
        layer = QuantConv2d(
            CHANNELS, CHANNELS, 3, padding=1, weight_bits=bits.weight,
            activation_bits=bits.activation,
        )  # fmt: skip
        return nn.Sequential(nn.ReLU(), layer, nn.BatchNorm2d(CHANNELS))

    def _sequence(self, number: int) -> nn.Module:
        parts = [self._unit()] + [self._part() for _ in range(number - 1)]
        self._random.shuffle(parts)
        return self._pick(
            {
                "a Sequential": lambda: nn.Sequential(*parts),
                "a Sequential in another": lambda: nn.Sequential(nn.Sequential(*parts)),
                "called backwards": lambda: Backwards(*parts),
                "called by a list": lambda: Listed(*parts),
            }
        )

    def _block(self, kernel: int = 3, inplace: bool = False) -> nn.Sequential:
        block = conv_block(kernel, inplace)
        if kernel == 3:
            self._convs.append(block[0])
        return block

    def _tie(self) -> None:
        if self._is("tied convolutions", 0.2) and len(self._convs) > 1:
            self._convs[-1].weight = self._convs[0].weight
        del self._convs

    def _prepare(self) -> None:
        if self._is("a norm called twice") and self.norm is None:
            self.features.discard("a norm called twice")
        self._is("a body called twice", 0.1)
        if self._is("frozen layers", 0.2):
            self.stem.requires_grad_(False)
            self.head.weight.requires_grad_(False)
        if self._is("constants", 0.2):
            nn.init.constant_(self.head.bias, 0.25)
        if self._is("drawn by the space", 0.2):
            nn.init.normal_(self.head.weight, 0.0, 0.3)
        if self._is("a hook", 0.2):
            self.stem.register_forward_hook(double)


def double(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Double what a layer returns."""
    return output * 2
