"""Networks without choices, put together at random of what people do in theirs, to be converted.

What a network has is drawn from its number.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 8
"""Height and width of the images, which no part changes."""
MOST = 64
"""Channels that a network has anywhere."""


class Computes(nn.Module):
    """Modules, and a function of them and of an input, as forward methods are written."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module | nn.Parameter):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


Part = tuple[nn.Module, int]
"""A module, and how many channels it returns."""


def conv(inputs: int, outputs: int, kernel: int = 1, **more: int | bool) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


def block(draws: random.Random, n: int) -> Part:
    outputs = draws.choice([8, 16, 24])
    act = draws.choice([nn.ReLU(inplace=True), nn.SiLU(), nn.PReLU(outputs), nn.Sigmoid()])
    kernel = draws.choice([1, 3])
    return nn.Sequential(
        conv(n, outputs, kernel, bias=False), nn.BatchNorm2d(outputs), act
    ), outputs


def residual(draws: random.Random, n: int) -> Part:
    inside = draws.choice([8, 12])
    return Computes(
        lambda self, x: x + self.two(F.relu(self.norm(self.one(x)))),
        one=conv(n, inside, 3, bias=False),
        norm=nn.BatchNorm2d(inside),
        two=conv(inside, n),
    ), n


def depthwise(draws: random.Random, n: int) -> Part:
    return nn.Sequential(conv(n, n, draws.choice([3, 5, 7]), groups=n), nn.BatchNorm2d(n)), n


def multiplier(draws: random.Random, n: int) -> Part:
    return conv(n, 2 * n, 3, groups=n), 2 * n


def grouped(draws: random.Random, n: int) -> Part:
    return conv(n, 16, 3, groups=2), 16


def squeeze(draws: random.Random, n: int) -> Part:
    return Computes(
        lambda self, x: x * self.two(F.relu(self.one(x.mean((2, 3))))).sigmoid()[:, :, None, None],
        one=nn.Linear(n, 4),
        two=nn.Linear(4, n),
    ), n


def channel_attention(draws: random.Random, n: int) -> Part:
    return Computes(
        lambda self, x: x * self.one(x.mean((2, 3))[:, None]).sigmoid()[:, 0, :, None, None],
        one=nn.Conv1d(1, 1, 3, padding=1),
    ), n


def spatial_attention(draws: random.Random, n: int) -> Part:
    return Computes(
        lambda self, x: (
            x * self.one(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()
        ),
        one=conv(2, 1, 3),
    ), n


def attention(draws: random.Random, n: int) -> Part:
    def run(self: Computes, x: Tensor) -> Tensor:
        q, k, v = self.one(x.flatten(2).transpose(1, 2)).chunk(3, -1)
        mixed = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return mixed.transpose(1, 2).unflatten(2, (SIDE, SIDE))

    return Computes(run, one=nn.Linear(n, 24)), 8


def norm(draws: random.Random, n: int) -> Part:
    kinds = [nn.GroupNorm(2, n), nn.InstanceNorm2d(n, affine=True), nn.LocalResponseNorm(3)]
    return draws.choice(kinds), n


def linear(draws: random.Random, n: int) -> Part:
    return Computes(
        lambda self, x: F.relu(self.one(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2),
        one=nn.Linear(n, 16),
    ), 16


def shuffle(draws: random.Random, n: int) -> Part:
    return nn.ChannelShuffle(2), n


def half(draws: random.Random, n: int) -> Part:
    return Computes(
        lambda self, x: torch.cat([self.one(x[:, : n // 2]), x[:, n // 2 :]], 1),
        one=conv(n // 2, n // 2, 3),
    ), n


def gate(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: F.glu(self.one(x), 1), one=conv(n, 16)), 8


def maxout(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: self.one(x).unflatten(1, (8, 2)).amax(2), one=conv(n, 16)), 8


def twice(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: self.one(F.relu(self.one(x))), one=conv(n, n, 3)), n


def branches(draws: random.Random, n: int) -> Part:
    return Computes(
        lambda self, x: torch.stack([self.one(x), self.two(x)], 1).sum(1),
        one=conv(n, 8),
        two=conv(n, 8, 3),
    ), 8


def scale(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: x + self.one, one=nn.Parameter(torch.rand(n, 1, 1))), n


def position(draws: random.Random, n: int) -> Part:
    value = nn.Parameter(torch.rand(1, n, SIDE, SIDE))
    return Computes(lambda self, x: x + self.one, one=value), n


def repeated(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: x.repeat_interleave(2, 1)), 2 * n


def padded(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: F.pad(x, (0, 0, 0, 0, 0, 4))), n + 4


def rolled(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: x.roll(1, 1)), n


def size_of_channels(draws: random.Random, n: int) -> Part:
    return Computes(lambda self, x: x / x.shape[1] ** 0.5), n


PARTS = (
    block, block, residual, depthwise, multiplier, grouped, squeeze, channel_attention,
    spatial_attention, attention, norm, linear, shuffle, half, gate, maxout, twice, branches,
    scale, position, repeated, padded, rolled, size_of_channels,
)  # fmt: skip


class RandomPlainNetwork(nn.Module):
    """The network of a number, in evaluation mode; `parts` names what it is made of."""

    def __init__(self, number: int):
        super().__init__()
        draws = random.Random(number)
        torch.manual_seed(number)
        self.stem = nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.body, self.joins, self.parts = nn.ModuleList(), [], []
        channels = 8
        for _ in range(draws.randint(2, 6)):
            part = draws.choice(PARTS)
            module, returned = part(draws, channels)
            how = draws.choice(["", "add"] if returned == channels else ["", "cat"])
            self.body.append(module)
            self.joins.append(how)
            self.parts.append(part.__name__)
            channels = channels + returned if how == "cat" else returned
            if channels > MOST or channels % 2:
                self.body.append(conv(channels, 8))
                self.joins.append("")
                channels = 8
        self.is_flat = draws.random() < 0.3
        self.head = nn.Linear(channels * (SIDE**2 if self.is_flat else 1), 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # so that outputs say something
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
                nn.init.uniform_(module.weight, 0.5, 1.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for module, how in zip(self.body, self.joins, strict=True):
            made = module(x)
            x = x + made if how == "add" else torch.cat([x, made], 1) if how == "cat" else made
        return self.head(x.flatten(1) if self.is_flat else x.mean((2, 3)))
