"""A space of one unit between a stem and a head, and what its networks really cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import model_context
from torch import Tensor, nn

from nni_spos.path import PathSpace

IMAGE = (1, 8, 8)
MACS = {"k1": 16 * 4 * 9 + 16 * 16 + 40, "k3": 16 * 4 * 9 + 16 * 16 * 9 + 40}
"""Of the small space: stem and unit at 4x4 pixels of 4 channels, and the head."""


class Small(ModelSpace):
    """Sub-classes say with `build` what else it has, and with `body` what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        blocks = {"k1": nn.Conv2d(4, 4, 1), "k3": nn.Conv2d(4, 4, 3, 1, 1)}
        self.unit = LayerChoice(blocks, label="unit")
        self.head = nn.Linear(4, 10)
        self.build()

    def build(self) -> None:
        """Add to the space."""

    def body(self, x: Tensor) -> Tensor:
        return self.unit(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def small(body: Callable[..., Tensor] = Small.body, **parts: Callable[[], Any]) -> type[Small]:
    """Return a space with these attributes, built in its constructor."""

    def build(self: Small) -> None:
        for name, make in parts.items():
            setattr(self, name, make())

    return type("Space", (Small,), {"body": body, "build": build})


def features(space: Small, x: Tensor) -> Tensor:
    """Return what stem and unit make of an image."""
    return space.unit(space.stem(x))


def real_costs(
    space: type[ModelSpace], path: dict[str, Any], *arguments: Any, image: Any = IMAGE
) -> tuple[int, int]:
    """Return multiply-adds of convolutions and linear layers, and parameters, of NNI's network."""
    macs = 0

    def count(layer: Any, _: Any, output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    with model_context(path):
        network = space(*arguments)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.rand(1, *image))
    return macs, sum(parameter.numel() for parameter in network.parameters())


def assert_right(costs: Any, space: type[ModelSpace], *arguments: Any, image: Any = IMAGE) -> None:
    """Compare the tables with the real costs of every path."""
    paths = PathSpace.from_model_space(space(*arguments))
    for path in paths.decode(paths.enumerate()):
        real = real_costs(space, path, *arguments, image=image)
        assert (costs["flops"].price(path), costs["params"].price(path)) == real, path
