"""A training technique."""

from dataclasses import dataclass

from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import Technique


class Steady(Technique):
    """Lower the loss of large outputs."""

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        strength
            Of the penalty.
        """

        strength: float = setting(real(0), 0.01)

    def loss(self, compute, outputs, targets):
        return compute(outputs, targets) + self.settings.strength * outputs.square().mean()
