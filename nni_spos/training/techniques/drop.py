"""Dropout before the classifier: ``drop``, as timm has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    from torch import nn

    from nni_spos.data import ImageData


class Drop(Technique):
    """Drop inputs of the last linear layer at random, beside what the network itself drops."""

    title = "drop"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        drop
            Share of the features before the classifier that are dropped.
        """

        drop: float = setting(real(0, 0.999), 0.0)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._hooks: list[Any] = []

    def check_network(self, network: nn.Module) -> None:
        _classifier(network)

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        from torch.nn import functional

        def drop(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            return (functional.dropout(inputs[0], self.settings.drop, layer.training), *inputs[1:])

        self._hooks = [_classifier(network).register_forward_pre_hook(drop)]

    def end(self, network: nn.Module) -> None:
        for hook in self._hooks:
            hook.remove()


def _classifier(network: nn.Module) -> nn.Module:
    """Return the last linear layer of a network. Raises RecipeError if it has none."""
    from torch import nn

    layers = [x for x in network.modules() if isinstance(x, nn.Linear)]
    if not layers:
        raise RecipeError("drop: the network has no linear layer to drop features before.")
    return layers[-1]
