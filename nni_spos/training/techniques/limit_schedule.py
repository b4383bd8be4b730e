"""Limits on the paths of a training that change as it goes on: ``limit_schedule``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.constraint import Constraint
from nni_spos.errors import ConstraintError, CostError, RecipeError
from nni_spos.metrics.units import unknown_metric
from nni_spos.priors.constrained import ConstrainedPrior
from nni_spos.priors.filtered import FilteredPrior
from nni_spos.priors.scheduled import ScheduledPrior
from nni_spos.recipe.registries import METRICS
from nni_spos.recipe.settings import TEXT, mapping_of, real, setting
from nni_spos.training.technique import SUPERNET, Technique

if TYPE_CHECKING:
    from nni_spos.priors.base import Prior
    from nni_spos.training.sampling import Sampling

SCHEDULE = mapping_of(
    TEXT,
    real(0, 1),
    "a mapping of limits to shares of the steps such as {'flops >= 80%': 0.2, 'flops >= 60%': 0.2}",
)


def _parsed(schedule: Mapping[str, float]) -> tuple[tuple[Constraint, float], ...]:
    return tuple((Constraint.parse(limit), share) for limit, share in schedule.items())


class LimitSchedule(Technique):
    """Draw the paths of the first steps within a limit, those of the next within another one.

    In a phase all paths that keep its limit are alike. When the phases are over the prior's paths
    follow; before, no limit of the prior holds. A budget that shrinks, large paths first, is a
    lower limit that falls: ``{flops >= 80%: 0.2, flops >= 60%: 0.2}``.

    References
    ----------
    Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR
    2020.
    """

    title = "limit_schedule"
    sections = (SUPERNET,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        limit_schedule
            Limits on a cost, each with the share of the steps in which paths keep it, in their
            order; what the shares leave follows the prior.
        """

        limit_schedule: tuple[tuple[Constraint, float], ...] = setting(SCHEDULE, (), _parsed)

        def __post_init__(self) -> None:
            total = math.fsum(share for _, share in self.limit_schedule)
            if total > 1:
                raise RecipeError(
                    f"limit_schedule: the shares must add up to at most 1, got {total:g}."
                )

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        for limit, _ in settings.limit_schedule:
            if limit.metric not in METRICS.ours:
                raise RecipeError(
                    f"limit_schedule: '{limit}': only costs that follow from the space can be "
                    f"limited: {', '.join(METRICS.ours)}."
                )
        if getattr(training.settings, "channel_warmup_steps", 0):
            raise self._contradicts("channel_warmup_steps lets channel numbers in one by one")
        for asked in training.settings.techniques:
            if asked.name == "shrinking":
                raise self._contradicts("shrinking lets choices in one by one")
            if asked.name == "paths" and asked.arguments.get("sandwich"):
                raise self._contradicts("sandwich trains the largest and the smallest path always")

    def prior(self, sampling: Sampling) -> Prior:
        ends = itertools.accumulate(share for _, share in self.settings.limit_schedule)
        return ScheduledPrior(
            sampling.prior,
            [
                (round(end * sampling.num_steps), _within(limit, sampling))
                for end, (limit, _) in zip(ends, self.settings.limit_schedule, strict=True)
            ],
        )

    def _contradicts(self, what: str) -> RecipeError:
        return RecipeError(f"{self.title}: {what}. Leave one of them out.")


def _within(limit: Constraint, sampling: Sampling) -> Prior:
    """Return what draws all paths alike that keep a limit, and a filter of the strategy.

    Raises
    ------
    RecipeError, ConstraintError
        There are no cost tables, or not of this cost.
    InfeasibleError
        No path keeps the limit.
    """
    if not sampling.costs:
        raise RecipeError(
            "limit_schedule: needs cost tables: SinglePathOneShot(prior, costs=build_costs(...))."
        )
    cost = sampling.costs.get(limit.metric)
    if cost is None:
        known = unknown_metric(limit.metric, sampling.costs)
        raise ConstraintError(f"limit_schedule: '{limit}': {known}")
    space, seed = sampling.prior.space, sampling.prior.seed
    try:
        found: Prior = ConstrainedPrior(space, cost, limit, seed)
    except CostError:  # its paths cannot be counted
        found = ConstrainedPrior(space, cost, limit, seed, "rejection")
    if isinstance(sampling.prior, FilteredPrior):
        return FilteredPrior(found, sampling.prior.accepts)
    return found
