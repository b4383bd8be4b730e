"""Bayesian optimisation: a model of all results so far says what is worth an evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nni_spos.cost_table import Costs
from nni_spos.errors import SearchError
from nni_spos.evolution.candidate import Candidate, State
from nni_spos.evolution.front import pareto_front
from nni_spos.evolution.landmarks import POOL, draw_pool
from nni_spos.evolution.search import Search
from nni_spos.metrics.units import unknown_metric
from nni_spos.path import Indices, PathKey, PathSpace
from nni_spos.prediction.acquisition import choose_batch, log_expected_improvement
from nni_spos.prediction.design import d_optimal
from nni_spos.prediction.inputs import Numbers
from nni_spos.prediction.model import PathModel, Posterior
from nni_spos.recipe.rules import METRIC_NAMES
from nni_spos.recipe.settings import POSITIVE_INT, setting


@dataclass(frozen=True)
class BayesianSettings:
    """What a recipe says of Bayesian optimisation.

    Parameters
    ----------
    num_initial
        Results before the model chooses; until then paths are those that say most about all others.
    cost_objectives
        Costs to minimise beside the maximised objective; by default none.
    """

    num_initial: int = setting(POSITIVE_INT, 10)
    cost_objectives: tuple[str, ...] = setting(METRIC_NAMES, (), tuple)


class BayesianSearch(Search):
    """Evaluate the paths that promise the largest improvement by a model of all results so far.

    The model is a `nni_spos.prediction.PathModel`. The first candidates are those whose results say
    most about all others. Every further generation is the batch of largest expected improvement
    among random feasible paths, mutants of the best, and neighbours of the most promising. Failed
    paths say nothing.

    Every generation learns from the one before it, so many small ones need fewer evaluations than
    a few large ones: as many as can be evaluated at the same time. With costs to minimise, the
    improvement is that of the best result under a random limit of these costs, which spreads the
    candidates along the front.

    Parameters
    ----------
    num_initial
        Results before the model chooses.
    cost_objectives
        Costs to minimise beside the maximised `objective`; by default none.
    **settings
        See `Search`: constraints, population_size, num_generations, objective, seed.

    Raises
    ------
    SearchError
        There is no table of a cost to minimise.

    References
    ----------
    Ament et al., Unexpected Improvements to Expected Improvement for Bayesian Optimization,
    NeurIPS 2023.
    """

    Settings: ClassVar[type[Any]] = BayesianSettings
    title: ClassVar[str] = "Bayesian optimisation"

    MOST_KNOWN = 256
    """Results that a generation learns from: the best half, and others evenly."""
    NUM_PARENTS = 10
    NUM_RANDOM = 600
    NUM_MUTANTS = 400
    NUM_REFINED = 10
    NUM_KEPT = 200
    NUM_GOALS = 16
    """Limits of costs that a path can be the best under, if costs are minimised."""

    def __init__(
        self,
        space: PathSpace,
        costs: Costs,
        *,
        num_initial: int = 10,
        cost_objectives: Sequence[str] = (),
        **settings: Any,
    ):
        super().__init__(space, costs, **settings)
        self.num_initial = num_initial
        self.cost_objectives = tuple(cost_objectives)
        for metric in self.cost_objectives:
            if metric not in self.costs:
                raise SearchError(f"cost_objectives: {unknown_metric(metric, self.costs)}")
        self._model = PathModel(space, costs)
        self._estimated_at = -1

    def front(self) -> list[Candidate]:
        """Return the finished candidates that no other one dominates, by rising cost."""
        return pareto_front(self.candidates, self.objective, self.cost_objectives)

    def propose(self, generator: np.random.Generator) -> Iterator[PathKey]:
        if len(self._known) >= self.population_size:
            # A resumed search: its generations need not be computed again, nor would those of
            # another machine be the same to the last digit.
            known = itertools.islice(list(self._known), self.population_size)
            yield from filter(self.is_new, known)
        elif len(self._ranking) < max(2, self.num_initial):
            yield from self._initial(generator)
        else:
            yield from self._promising(generator)
        yield from filter(self.is_new, self.sampler.stream(generator))

    def _initial(self, generator: np.random.Generator) -> Iterator[PathKey]:
        """Yield paths whose results say most about all others."""
        pool = draw_pool(self.sampler, POOL, generator, self._candidates)
        known = np.array(list(self._candidates), dtype=np.int64).reshape(-1, len(self.space))
        for place in d_optimal(pool, self.space.num_choices, known):
            yield tuple(pool[place].tolist())

    def _promising(self, generator: np.random.Generator) -> Iterator[PathKey]:
        """Yield the batch of the largest expected improvement."""
        known, costs = self._learn()
        best = [self.space.key(candidate.path) for candidate in self.top(self.NUM_PARENTS)]
        random = draw_pool(self.sampler, self.NUM_RANDOM, generator, self._candidates)
        if self.cost_objectives:
            front = self.front()
            some = generator.permutation(len(front))[: self.NUM_PARENTS]
            best = [*(self.space.key(front[i].path) for i in some), *best]
        pool = self._distinct([random, self._mutants(best, generator)])
        goals = self._goals(known, costs, pool, generator)
        pool = self._refined(pool, goals)
        posterior, allowed = self._judge(pool, goals)
        count = self.population_size
        for place in choose_batch(posterior, goals.levels, allowed, count, generator):
            yield tuple(pool[place].tolist())

    def _refined(self, pool: Indices, goals: _Goals) -> Indices:
        """Return the most promising paths of some, and the neighbours of the first of these."""
        posterior, allowed = self._judge(pool, goals)
        values = log_expected_improvement(
            posterior.mean, np.sqrt(posterior.variance), goals.levels[:, None]
        )
        score = np.where(allowed, values, -np.inf).max(axis=0, initial=-np.inf)
        order = np.argsort(-score, kind="stable")
        first = [tuple(pool[i].tolist()) for i in order[: self.NUM_REFINED]]
        return self._distinct([pool[order[: self.NUM_KEPT]], self._neighbours(first)])

    def _learn(self) -> tuple[Indices, Numbers]:
        """Fit the model to the results so far; return their paths and costs to minimise."""
        done = sorted(
            (
                (c.generation, key, c)
                for key, c in self._candidates.items()
                if c.state is State.DONE
            ),
            key=lambda x: x[:2],
        )
        due = _last_estimate(self.generation)
        if self._estimated_at != due:
            early = [x for x in done if x[0] < due]
            self._fit(early if len(early) > 1 else done, estimate=True)
            self._estimated_at = due
        chosen = self._fit(self._informative(done), estimate=False)
        metrics = self.cost_objectives
        costs = [[float(c.costs[x]) for x in metrics] for _, _, c in chosen]
        indices = np.array([key for _, key, _ in chosen], dtype=np.int64)
        return indices, np.array(costs, dtype=float).reshape(len(chosen), len(metrics))

    def _fit(self, done: list[Any], *, estimate: bool) -> list[Any]:
        indices = np.array([key for _, key, _ in done], dtype=np.int64)
        results = [candidate.metrics[self.objective] for _, _, candidate in done]
        self._model.fit(indices, results, estimate=estimate)
        return done

    def _informative(self, done: list[Any]) -> list[Any]:
        """Return the results that a generation learns from, in the same order."""
        if len(done) <= self.MOST_KNOWN:
            return done
        scores = np.array([-candidate.metrics[self.objective] for _, _, candidate in done])
        order = np.argsort(scores, kind="stable")
        half = self.MOST_KNOWN // 2
        rest = np.sort(order[half:])
        even = rest[np.linspace(0, len(rest) - 1, half).round().astype(int)]
        return [done[i] for i in sorted({*order[:half].tolist(), *even.tolist()})]

    def _goals(
        self, known: Indices, costs: Numbers, pool: Indices, generator: np.random.Generator
    ) -> _Goals:
        """Return what is to be exceeded, and within which costs."""
        means = Posterior(self._model, known).mean
        if not self.cost_objectives or not len(pool):
            return _Goals(np.array([means.max()]), np.full((1, costs.shape[1]), np.inf))
        # Evenly from the cheapest to the dearest: few random paths have the costs of either.
        all_costs = np.concatenate([costs, self._costs_of(pool)])
        low, extent = all_costs.min(axis=0), np.ptp(all_costs, axis=0)
        shape = (self.NUM_GOALS, costs.shape[1])
        places = generator.permuted(np.tile(np.arange(self.NUM_GOALS), (shape[1], 1)), axis=1).T
        limits = low + (places + generator.random(shape)) / self.NUM_GOALS * extent
        keeps = (costs[None, :, :] <= limits[:, None, :]).all(axis=2)
        levels = np.where(keeps, means, -np.inf).max(axis=1)
        return _Goals(np.maximum(levels, means.min() - 1), limits)

    def _judge(self, pool: Indices, goals: _Goals) -> tuple[Posterior, npt.NDArray[np.bool_]]:
        costs = self._costs_of(pool)
        allowed = np.all(costs[None, :, :] <= goals.limits[:, None, :], axis=2)
        return Posterior(self._model, pool), np.asarray(allowed)

    def _costs_of(self, indices: Indices) -> Numbers:
        columns = [self.costs[metric].price_many(indices) for metric in self.cost_objectives]
        return np.array(columns, dtype=float).reshape(len(columns), len(indices)).T

    def _mutants(self, parents: Sequence[PathKey], generator: np.random.Generator) -> Indices:
        """Return mutants of some paths, and all paths that differ from the first at one label."""
        rows = np.array(parents)[generator.integers(len(parents), size=self.NUM_MUTANTS)]
        share = np.maximum(0.1, 2 / rows.shape[1])
        redrawn = generator.random(rows.shape) < share
        drawn = generator.integers(0, np.array(self.space.num_choices), size=rows.shape)
        mutants = np.where(redrawn, drawn, rows)
        if self.sampler.share >= RARE:
            return np.concatenate([mutants, self._neighbours(parents[:3])])
        # Hardly any mutant meets the constraints: labels of a part are drawn anew instead.
        repaired: list[PathKey] = []
        for parent, free in zip(rows[:NUM_REPAIRED].tolist(), redrawn, strict=False):
            options = [
                range(n) if again or generator.random() < 0.3 else (old,)
                for old, again, n in zip(parent, free, self.space.num_choices, strict=True)
            ]
            repaired += itertools.islice(self.sampler.within(options, generator), 20)
        return np.array([*repaired, *parents[:1]], dtype=np.int64)

    def _neighbours(self, keys: Sequence[PathKey]) -> Indices:
        """Return all paths that differ from one of some at a single label."""
        found = []
        for key in keys:
            for label, number in enumerate(self.space.num_choices):
                rows = np.repeat(np.array([key]), number, axis=0)
                rows[:, label] = np.arange(number)
                found.append(rows)
        return np.concatenate(found) if found else np.empty((0, len(self.space)), dtype=np.int64)

    def _distinct(self, parts: Sequence[Indices]) -> Indices:
        """Return the different paths of some that may be proposed."""
        rows = np.concatenate(parts)
        if self.sampler.constraints:
            rows = rows[self.sampler.feasible(rows)]
        keys = dict.fromkeys(map(tuple, rows.tolist()))
        new = [key for key in keys if key not in self._candidates]
        return np.array(new, dtype=np.int64).reshape(len(new), len(self.space))


RARE = 0.01
"""Share of paths that meet the constraints below which mutants are made so that they do."""

NUM_REPAIRED = 25


@dataclass(frozen=True)
class _Goals:
    """What is to be exceeded.

    Parameters
    ----------
    levels
        Results, shape (num_goals,).
    limits
        Costs within which, shape (num_goals, num_cost_objectives).
    """

    levels: Numbers
    limits: Numbers


def _last_estimate(generation: int) -> int:
    """Return the last generation, up to one, at which the scales of the model are estimated.

    Each of the first, then ever more seldom: what a few more results change is little. It depends
    on nothing else, so that a resumed search finds the same.

    >>> [_last_estimate(x) for x in (1, 2, 7, 8, 9, 20)]
    [1, 2, 7, 8, 9, 19]
    """
    due = 1
    while (following := max(due + 1, int(due * 1.2))) <= generation:
        due = following
    return due
