"""NSGA-II: the whole front of accuracy and costs from one search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from nni_spos.cost_table import Costs
from nni_spos.errors import SearchError
from nni_spos.evolution.breeding import BreedingSearch, BreedingSettings
from nni_spos.evolution.candidate import Candidate
from nni_spos.evolution.contenders import Contenders
from nni_spos.evolution.front import choose_cost_objectives, pareto_front
from nni_spos.metrics.units import unknown_metric
from nni_spos.path import PathKey, PathSpace
from nni_spos.recipe.rules import METRIC_NAMES
from nni_spos.recipe.settings import setting


@dataclass(frozen=True)
class Nsga2Settings(BreedingSettings):
    """What a recipe says of NSGA-II.

    Parameters
    ----------
    cost_objectives
        Costs to minimise beside the maximised objective; by default that of the first constraint,
        without constraints ``flops``.
    """

    cost_objectives: tuple[str, ...] = setting(METRIC_NAMES, (), tuple)

    def beside(self, section: Any) -> Nsga2Settings:
        """Return the settings with the costs that the constraints choose. Raises RecipeError."""
        super().beside(section)
        chosen = choose_cost_objectives(self.cost_objectives, section.constraints)
        return replace(self, cost_objectives=chosen)


class Nsga2Search(BreedingSearch):
    """Evolve paths towards high accuracy and low costs at once, under hard constraints.

    Of all candidates so far, `population_size` survive: by the rank of their front, and within
    the front that does not fit by their crowding distance. Parents win binary tournaments between
    survivors. Both are those of pymoo. In contrast to the original, a candidate that did not
    survive once can do so later: as no path is evaluated twice, it could not come back otherwise.

    Parameters
    ----------
    cost_objectives
        Costs to minimise beside the maximised `objective`; by default the first constraint's,
        without constraints ``flops``.
    **settings
        See `BreedingSearch`: num_mutations, num_crossovers, mutation_prob; and `Search`:
        constraints, population_size, num_generations, objective, seed.

    Raises
    ------
    SearchError
        There is no table of a cost to minimise, or pymoo is not installed.

    References
    ----------
    Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, IEEE Transactions on
    Evolutionary Computation, 2002.
    """

    Settings: ClassVar[type[Any]] = Nsga2Settings

    def __init__(
        self,
        space: PathSpace,
        costs: Costs,
        *,
        cost_objectives: Sequence[str] = (),
        **settings: Any,
    ):
        super().__init__(space, costs, **settings)
        self.cost_objectives = choose_cost_objectives(cost_objectives, self.sampler.constraints)
        for metric in self.cost_objectives:
            if metric not in self.costs:
                raise SearchError(f"cost_objectives: {unknown_metric(metric, self.costs)}")
        self._contenders = Contenders(self.objective, self.cost_objectives, self.population_size)
        self._num_compared = 0
        try:
            from pymoo.algorithms.moo.nsga2 import NSGA2
            from pymoo.core.problem import Problem
        except ModuleNotFoundError as problem:
            raise SearchError(
                f"the search nsga2 needs pymoo ({problem}): pip install 'nni_spos[nsga2]'."
            ) from None
        self._problem = Problem(n_var=len(space), n_obj=1 + len(self.cost_objectives))
        self._algorithm = NSGA2(pop_size=self.population_size)
        # As in the paper; pymoo's default lets crowding decide between most fronts.
        self._algorithm.tournament_type = "comp_by_rank_and_crowding"

    def front(self) -> list[Candidate]:
        """Return the finished candidates that no other one dominates, by rising cost."""
        return pareto_front(self.candidates, self.objective, self.cost_objectives)

    def select(self, generator: np.random.Generator) -> Iterator[PathKey]:
        from pymoo.core.population import Population

        self._contenders.add(self._ranking.since(self._num_compared))
        self._num_compared = len(self._ranking)
        population = Population.new(
            X=np.array([self.space.key(x.path) for x in self._contenders.candidates]),
            F=self._contenders.values,
        )
        algorithm = self._algorithm
        # pymoo's tournaments look here; nothing else may decide who wins a tie.
        algorithm.random_state = generator
        survivors = algorithm.survival.do(
            self._problem, population, n_survive=self.population_size, random_state=generator
        )
        while True:
            # Everyone takes part in two of these tournaments.
            winners = algorithm.mating.selection.do(
                self._problem,
                survivors,
                n_select=len(survivors),
                n_parents=1,
                algorithm=algorithm,
                random_state=generator,
            )
            for (winner,) in winners:
                yield tuple(winner.X.tolist())
