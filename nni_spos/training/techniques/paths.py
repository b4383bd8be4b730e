"""Several paths a step: ``paths``, and the sandwich rule: ``sandwich``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import BOOL, POSITIVE_INT, setting
from nni_spos.training.technique import SUPERNET, Technique

if TYPE_CHECKING:
    from nni_spos.path import Path
    from nni_spos.priors.base import Prior
    from nni_spos.training.sampling import Sampling


class Paths(Technique):
    """Update the weights with the mean gradient of several paths, which see the same batch.

    The paths of step t are those that the prior gives for the steps t * n to t * n + n - 1 of a
    training of single paths. With the sandwich rule the first is the largest path of the space, the
    second the smallest one, and the others are drawn.

    References
    ----------
    Yu and Huang, Universally Slimmable Networks and Improved Training Techniques, ICCV 2019.
    Chu et al., FairNAS: Rethinking Evaluation Fairness of Weight Sharing NAS, ICCV 2021, has a step
    of several paths too.
    """

    title = "paths"
    sections = (SUPERNET,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        paths
            Paths of a step; their gradients are averaged.
        sandwich
            Whether two of them are the largest and the smallest path of the space.
        """

        paths: int = setting(POSITIVE_INT, 1)
        sandwich: bool = setting(BOOL, default=False)

    @classmethod
    def switches(cls) -> Sequence[str]:
        """Either of them asks for it, so that a sandwich of one path is refused."""
        return ("paths", "sandwich")

    @classmethod
    def is_on(cls, settings: Settings) -> bool:
        """One path is a step already."""
        return settings.paths > 1 or settings.sandwich

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        if settings.sandwich and settings.paths < 2:
            raise RecipeError(
                f"sandwich: takes the largest and the smallest path in every step, and paths is "
                f"{settings.paths}. Give paths: 3 or more, or 2 for these two alone."
            )
        name = training.settings.strategy
        if name != "auto" and (training.settings.devices, training.settings.num_nodes) != (1, 1):
            raise RecipeError(
                f"paths: several processes with strategy: {name} train one path a step. Leave "
                "strategy out, or paths."
            )

    def prior(self, sampling: Sampling) -> Prior:
        if self.settings.sandwich:
            sampling.check_filter("sandwich", (sampling.largest, sampling.smallest))
        return sampling.prior

    def paths(self, paths: Sequence[Path], sampling: Sampling, step: int) -> Sequence[Path]:
        number = self.settings.paths
        if not self.settings.sandwich:
            return sampling.prior.paths(step, number)
        drawn = sampling.prior.paths(step, number - 2) if number > 2 else []
        return [sampling.largest, sampling.smallest, *drawn]
