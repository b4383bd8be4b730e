"""What the paths of a supernet's training come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import cached_property

from nni_spos.cost_table import Costs, CostTable
from nni_spos.errors import RecipeError
from nni_spos.path import Path
from nni_spos.priors.base import Prior


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What the paths of a supernet's training come from.

    Parameters
    ----------
    prior
        Draws the path of a step.
    costs
        Cost tables by metric; none where a training in Python was given none.
    num_steps
        Of the whole training.
    accepts
        Whether a path may be trained: the filter of a strategy in Python. None: all may.
    """

    prior: Prior
    costs: Costs = dataclasses.field(default_factory=dict)
    num_steps: int = 0
    accepts: Callable[[Path], bool] | None = None

    def replace_prior(self, prior: Prior) -> Sampling:
        """Return the same with another prior."""
        return dataclasses.replace(self, prior=prior)

    def check_filter(self, technique: str, paths: Iterable[Path]) -> None:
        """Refuse paths of a technique that the filter does not accept. Raises RecipeError."""
        for path in paths:
            if self.accepts is not None and not self.accepts(path):
                raise RecipeError(
                    f"{technique}: trains the path {dict(path)}, which the filter of "
                    "SinglePathOneShot refuses. Leave one of them out."
                )

    @cached_property
    def size(self) -> CostTable:
        """By which paths are large or small: bit operations, or multiply-adds without bits.

        Raises
        ------
        RecipeError
            There is no such cost.
        """
        for metric in ("bitops", "flops"):
            if metric in self.costs:
                return self.costs[metric]
        raise RecipeError(
            "this training must know which paths are large. Give it cost tables: "
            "SinglePathOneShot(prior, costs=build_costs(...))."
        )

    @cached_property
    def largest(self) -> Path:
        """The path of the space that costs most; the prior's limits do not hold for it."""
        return self.size.dearest()[1]

    @cached_property
    def smallest(self) -> Path:
        """The path of the space that costs least; the prior's limits do not hold for it."""
        return self.size.cheapest()[1]
