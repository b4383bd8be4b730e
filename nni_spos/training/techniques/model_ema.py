"""A moving average of the weights as the result of a training: ``model_ema``, as timm has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.recipe.settings import BOOL, real, setting
from nni_spos.training.technique import Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nni_spos.data import ImageData


class ModelEma(Technique):
    """Average weights and statistics over the steps; the average is what a training gives.

    Of a supernet all weights are averaged in all steps, those that a path did not use as they are.
    """

    title = "model_ema"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        model_ema
            Whether the moving average of the weights is the result.
        model_ema_decay
            Share of the average that a step keeps.
        model_ema_warmup
            Whether the first steps keep less, so that the initial weights are soon forgotten: step
            t keeps at most 1 - (1 + t)^(-2/3).
        """

        model_ema: bool = setting(BOOL, False)
        model_ema_decay: float = setting(real(0, 1), 0.9998)
        model_ema_warmup: bool = setting(BOOL, True)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._average: dict[str, Tensor] = {}

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        self._average = {name: x.detach().clone() for name, x in network.state_dict().items()}

    def after_step(self, network: nn.Module, step: int) -> None:
        import torch

        state = network.state_dict()
        names = [name for name, x in state.items() if x.is_floating_point()]
        averages = [self._average[name] for name in names]
        with torch.no_grad():
            torch._foreach_lerp_(averages, [state[x] for x in names], 1 - self.decay(step))
            for name in state.keys() - names:  # counts are not averaged
                self._average[name].copy_(state[name])

    def decay(self, step: int) -> float:
        """Return the share of the average that a step keeps, counted from 1."""
        decay: float = self.settings.model_ema_decay
        return min(decay, 1 - (1 + step) ** (-2 / 3)) if self.settings.model_ema_warmup else decay

    def end(self, network: nn.Module) -> None:
        network.load_state_dict(self._average)

    def state_dict(self) -> dict[str, Any]:
        return {"average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, tensor in self._average.items():
            tensor.copy_(state["average"][name])
