"""Another schedule of the learning rate than linear decay: ``sched``, with timm's names."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import POSITIVE_INT, one_of, optional, real, setting
from nni_spos.training.technique import Technique


class Sched(Technique):
    """Let the learning rate fall along another curve, after the section's warm-up."""

    title = "sched"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        sched
            How the learning rate falls: linear, cosine, or step.
        min_lr
            What it falls to.
        decay_epochs
            Epochs between two steps of step; by default a third of the training.
        decay_rate
            What a step of step multiplies it by.
        """

        sched: str = setting(one_of("linear", "cosine", "step"), "linear")
        min_lr: float = setting(real(0), 0.0)
        decay_epochs: int | None = setting(optional(POSITIVE_INT), None)
        decay_rate: float = setting(real(0, 1), 0.1)

        def __post_init__(self) -> None:
            if self.decay_epochs is not None and self.sched != "step":
                raise RecipeError("decay_epochs: is for sched: step. Leave it out.")

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """The paper's schedule is that of a training without this technique."""
        return settings.sched != "linear" or settings.min_lr > 0

    def schedule(self, num_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
        settings, rate = self.settings, self.training.settings.learning_rate
        low = settings.min_lr / rate if rate else 0.0
        epochs = settings.decay_epochs
        every = num_steps / 3 if epochs is None else epochs * steps_per_epoch
        curves: dict[str, Callable[[int], float]] = {
            "linear": lambda step: 1 - step / num_steps,
            "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / num_steps)),
            "step": lambda step: settings.decay_rate ** math.floor(step / every),
        }
        curve = curves[settings.sched]
        return lambda step: low + (1 - low) * curve(min(step, num_steps))
