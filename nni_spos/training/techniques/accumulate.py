"""Gradients of several batches for one step: ``accumulate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_spos.recipe.settings import POSITIVE_INT, setting
from nni_spos.training.technique import Technique


class Accumulate(Technique):
    """Update the weights with the mean gradient of several batches, which one path trains.

    Steps, of the recipe too, are updates; the last one of an epoch may have fewer batches.
    """

    title = "accumulate"

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        accumulate
            Batches whose gradients make a step.
        """

        accumulate: int = setting(POSITIVE_INT, 1)

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """One batch is a step already."""
        return settings.accumulate > 1

    def trainer_options(self) -> Mapping[str, Any]:
        return {"accumulate_grad_batches": self.settings.accumulate}
