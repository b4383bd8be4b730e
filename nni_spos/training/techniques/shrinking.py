"""Progressive shrinking, the largest path first: ``shrinking``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError
from nni_spos.priors.widening import WideningPrior
from nni_spos.recipe.settings import real, setting
from nni_spos.training.technique import SUPERNET, Technique

if TYPE_CHECKING:
    from nni_spos.path import Choice
    from nni_spos.priors.base import Prior
    from nni_spos.recipe.techniques import TechniqueSettings
    from nni_spos.training.sampling import Sampling


class Shrinking(Technique):
    """Begin with the largest path, and let smaller choices in as training goes on.

    Choices of a label are let in one by one, the dearest first: widths, bits, kernels and blocks
    alike. What a choice costs are the bit operations, or in a space without bits the multiply-adds,
    of the largest path with this choice. A label whose choices all cost the same has all of them
    from the first step on. When all are let in, the prior's paths follow; before, paths are uniform
    among those that are admitted, and no limit of the prior holds.

    References
    ----------
    Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR
    2020.
    """

    title = "shrinking"
    sections = (SUPERNET,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        shrinking
            Share of the steps in which choices are let in.
        shrinking_hold
            Share of the steps, before these, with the largest path alone.
        """

        shrinking: float = setting(real(0, 1), 0.0)
        shrinking_hold: float = setting(real(0, 1), 0.0)

    @classmethod
    def switches(cls) -> Sequence[str]:
        """Each by itself: without the first one all choices come at once."""
        return ("shrinking", "shrinking_hold")

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        if settings.shrinking + settings.shrinking_hold > 1:
            raise RecipeError(
                "shrinking: with shrinking_hold it must be at most 1, got "
                f"{settings.shrinking + settings.shrinking_hold:g}. Give smaller shares."
            )
        if getattr(training.settings, "channel_warmup_steps", 0):
            raise RecipeError(
                "shrinking: lets channel numbers in as channel_warmup_steps does. Leave one of "
                "them out."
            )
        if any(_has_sandwich(x) for x in training.settings.techniques):
            raise RecipeError(
                "shrinking: sandwich trains the smallest path from the first step on. Leave one of "
                "them out."
            )

    def prior(self, sampling: Sampling) -> Prior:
        if sampling.accepts is not None:
            raise RecipeError(
                "shrinking: draws paths itself while it lets choices in, and the filter of "
                "SinglePathOneShot would not hold for them. Leave one of them out."
            )
        hold = round(self.settings.shrinking_hold * sampling.num_steps)
        steps = hold + round(self.settings.shrinking * sampling.num_steps)
        return WideningPrior(sampling.prior, _dearest_first(sampling), steps, hold)


def _dearest_first(sampling: Sampling) -> dict[str, list[Choice]]:
    """Return the labels whose choices cost differently, and these in falling order of cost."""
    found = {}
    for label, choices in sampling.prior.space.items():
        costs = {x: sampling.size.price({**sampling.largest, label: x}) for x in choices}
        if len(set(costs.values())) > 1:
            found[label] = sorted(choices, key=lambda x: -costs[x])
    return found


def _has_sandwich(asked: TechniqueSettings) -> bool:
    return asked.name == "paths" and bool(asked.arguments.get("sandwich"))
