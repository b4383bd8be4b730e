"""Did a search leave a part of its limit unused, and may a dearer path be better?

A best path far below the limit is no fault by itself: the space may have nothing better. What can
be said for certain is what became of its neighbours, the paths that differ from it in one choice.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.costs.stored import are_built, load_costs
from nni_spos.errors import SposError
from nni_spos.evolution import Candidate, State
from nni_spos.evolution.feasible import in_unit
from nni_spos.latency.table import LatencyWarning
from nni_spos.metrics import format_metric
from nni_spos.path import Indices, PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import Results
from nni_spos.search.run_record import read_run_record
from nni_spos.tasks.base import Figure

ENOUGH = 0.95
"""Part of a limit that counts as all of it."""


@dataclass(frozen=True)
class UnusedLimit:
    """A limit that the best candidate stays well below, and the neighbours that cost more.

    Neighbours differ from the best candidate in the choice of one label, cost more of the limit's
    metric and keep every limit.

    Parameters
    ----------
    limit
        The one that the best candidate uses most of, in the unit of its metric.
    best
        The best candidate.
    scored
        Neighbours with a result, best first; none is better than the best candidate.
    num_failed
        Neighbours without a result.
    num_untried
        Neighbours that the search did not propose; None where the cost tables are not known.
    """

    limit: Constraint
    best: Candidate
    scored: Sequence[Candidate]
    num_failed: int
    num_untried: int | None

    def describe(self, figure: Figure) -> str:
        """Return one line about it.

        Parameters
        ----------
        figure
            How the objective is shown.
        """
        metric = self.limit.metric
        cost = self.best.costs[metric]
        used = (
            f"the best path uses {_percent(cost / self.limit.high)} of the limit of {metric} "
            f"({format_metric(metric, cost)} of {format_metric(metric, self.limit.high)})."
        )
        neighbours = "paths that differ from it in one choice, cost more and keep all limits"
        counts = self._counts(figure)
        if not counts:
            return f"{used} There are no {neighbours}."
        line = f"{used} {neighbours.capitalize()}: {', '.join(counts)}."
        if self.num_untried:
            line += " To try more: raise population_size or num_generations in 'search'."
        return line

    def _counts(self, figure: Figure) -> list[str]:
        """Return what became of the neighbours; nothing if it is known that there are none."""
        counts = []
        if self.scored:
            best = figure.format(self.scored[0].metrics[figure.name])
            counts.append(f"{len(self.scored)} scored and none better (the best has {best})")
        if self.num_failed:
            counts.append(f"{self.num_failed} failed")
        if self.num_untried is None:
            counts.append("how many were not tried is not known without the cost tables")
        elif counts or self.num_untried:
            counts.append(f"{self.num_untried} not tried")
        return counts


def tightest_limit(
    candidate: Candidate, limits: Iterable[Constraint], costs: Costs
) -> Constraint | None:
    """Return the upper limit that a candidate uses most of, in the unit of its metric.

    Parameters
    ----------
    candidate
        Priced.
    limits
        Of the search; a share needs the cost table of its metric.
    costs
        Cost tables by metric, as far as they are known.

    Returns
    -------
    None if there is no upper limit, or a limit is a share of an unknown cost.
    """
    limits = list(limits)
    if any(limit.is_share and limit.metric not in costs for limit in limits):
        return None
    upper = [in_unit(limit, costs) for limit in limits if 0 < limit.high < math.inf]
    known = [limit for limit in upper if limit.metric in candidate.costs]
    return max(known, key=lambda x: candidate.costs[x.metric] / x.high, default=None)


def find_unused_limit(
    results: Results, costs: Costs | None = None, limits: Sequence[Constraint] = ()
) -> UnusedLimit | None:
    """Return what the best candidate of a search left unused; None if it used its limit.

    Parameters
    ----------
    results
        Of the search.
    costs
        Cost tables by metric; by default those of the recorded recipe, if they are on the disk.
        Only with them is it known which neighbours were not tried.
    limits
        What `results` were picked by, beside the limits of the search.

    Returns
    -------
    None also for a search without a result, without an upper limit, or with costs to minimise.

    Raises
    ------
    PathError, ConstraintError
        The journal is damaged.
    """
    limits = [*map(Constraint.parse, results.constraints), *limits]
    metrics = {limit.metric for limit in limits}
    if not limits or results.cost_objectives or not results.num_done:
        return None
    if not all(metrics <= candidate.costs.keys() for candidate in results.candidates):
        return None
    space = PathSpace.from_search_space(results.settings.get("choices"))
    tables = _usable(results, space, _stored_costs(results) if costs is None else costs)
    best = results.best
    limit = tightest_limit(best, limits, tables)
    if limit is None or best.costs[limit.metric] >= ENOUGH * limit.high:
        return None
    kept = [in_unit(x, tables) for x in limits]
    tried = [c for c in _neighbours(results, space) if _qualifies(c.costs, best, limit, kept)]
    scored = [c for c in tried if c.state is State.DONE]
    untried = None
    if metrics <= tables.keys():
        untried = _count(space, best, limit, kept, tables) - len(tried)
    return UnusedLimit(
        limit=limit,
        best=best,
        scored=sorted(scored, key=lambda c: (-c.metrics[results.objective], c.number)),
        num_failed=len(tried) - len(scored),
        num_untried=untried,
    )


def unused_line(
    results: Results, costs: Costs | None = None, limits: Sequence[Constraint] = ()
) -> str:
    """Return what `find_unused_limit` finds as one line; "" for nothing, or a damaged journal."""
    with contextlib.suppress(SposError):
        if found := find_unused_limit(results, costs, limits):
            return found.describe(results.figure)
    return ""


def _percent(share: float) -> str:
    # Not rounded: 94.6 % would be 95 %, which is enough.
    return f"{math.floor(100 * share)} %"


def _stored_costs(results: Results) -> Costs:
    """Return the tables of the recipe that a search was of; none if that has not got them."""
    file = read_run_record(results.folder).recipe
    if file is None:
        return {}
    with contextlib.suppress(SposError), warnings.catch_warnings():
        warnings.simplefilter("ignore", LatencyWarning)  # the search has said it
        recipe = load_recipe(file)
        if are_built(recipe):
            return load_costs(recipe)[1]
    return {}


def _usable(results: Results, space: PathSpace, costs: Costs) -> Costs:
    """Return the tables that price the best path as the search did."""
    best = results.best
    return {
        metric: table
        for metric, table in costs.items()
        if table.space == space and table.price(best.path) == best.costs.get(metric)
    }


def _neighbours(results: Results, space: PathSpace) -> list[Candidate]:
    """Return the candidates that differ from the best one in one choice."""
    candidates = results.candidates
    differing = space.encode(c.path for c in candidates) != space.encode([results.best.path])
    return [c for c, n in zip(candidates, differing.sum(axis=1), strict=True) if n == 1]


def _qualifies(
    costs: Mapping[str, float], best: Candidate, limit: Constraint, limits: Sequence[Constraint]
) -> bool:
    is_dearer = costs[limit.metric] > best.costs[limit.metric]
    return is_dearer and all(x.allows(costs[x.metric]) for x in limits)


def _count(
    space: PathSpace,
    best: Candidate,
    limit: Constraint,
    limits: Sequence[Constraint],
    costs: Costs,
) -> int:
    """Return how many neighbours there are."""
    paths = _one_change(space, best)
    prices = {metric: costs[metric].price_many(paths).tolist() for metric in costs}
    rows = ({metric: prices[metric][row] for metric in prices} for row in range(len(paths)))
    return sum(_qualifies(row, best, limit, limits) for row in rows)


def _one_change(space: PathSpace, best: Candidate) -> Indices:
    """Return the paths that differ from one in one choice, shape (num_paths, num_labels)."""
    key = space.key(best.path)
    rows = [
        [*key[:column], place, *key[column + 1 :]]
        for column, count in enumerate(space.num_choices)
        for place in range(count)
        if place != key[column]
    ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(key))
