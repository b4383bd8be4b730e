"""Spaces of a few layers, their supernets, and the paths that are set in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import nni
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.modules import active_path
from nni_spos.mutables import share_weights
from nni_spos.path import Choice, PathSpace
from nni_spos.supernet import SinglePathOneShot

WAYS = {"share_weights": share_weights, "strategy": SinglePathOneShot().mutate_model}
"""The two ways from a space to weight-sharing layers."""


class Chain(ModelSpace):
    """Layers one after the other; they are made in here, where NNI follows choices."""

    def __init__(self, *makers: Callable[[], nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(*(make() for make in makers))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Net(Chain):
    """Layers one after the other whose weights the space draws itself."""

    def __init__(self, *makers: Callable[[], nn.Module]):
        super().__init__(*makers)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.25)


def choose(label: str, *values: Choice) -> Any:
    return nni.choice(label, list(values))


def computed(function: Callable[..., Any], choice: Any) -> MutableExpression[Any]:
    return MutableExpression(function, "f({})", [choice])


def build_supernet(*makers: Callable[[], nn.Module], way: str = "strategy") -> ModelSpace:
    """Make weights, biases and statistics that differ from element to element; in eval mode."""
    supernet = WAYS[way](Chain(*makers))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*supernet.parameters(), *supernet.buffers()]:
            if tensor.is_floating_point() and tensor.dim():
                scale = max(1, tensor[0].numel()) ** -0.5
                tensor.copy_(scale * (torch.rand(tensor.shape, generator=generator) + 0.1))
                if tensor.dim() > 1:
                    tensor.mul_(torch.randint(2, tensor.shape, generator=generator) * 2 - 1)
    return supernet.eval()


def set_path(supernet: nn.Module, path: Mapping[str, Choice]) -> None:
    active_path.set_path(active_path.choice_units(supernet), path)


def paths_of(supernet: ModelSpace) -> Iterator[dict[str, Choice]]:
    """Yield all paths, each set in the supernet."""
    space = PathSpace.from_model_space(supernet)
    for path in space.decode(space.enumerate()):
        set_path(supernet, path)
        yield path


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def assert_close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}
