"""Algorithm 1 of the paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nni_spos.cost_table import Costs
from nni_spos.evolution.breeding import BreedingSearch, BreedingSettings
from nni_spos.path import PathKey, PathSpace
from nni_spos.recipe.settings import POSITIVE_INT, setting


@dataclass(frozen=True)
class EvolutionSettings(BreedingSettings):
    """What a recipe says of the evolution.

    Parameters
    ----------
    top_k
        Number of candidates, best of all so far, that parents are drawn from.
    """

    top_k: int = setting(POSITIVE_INT, 10)


class EvolutionSearch(BreedingSearch):
    """Evolve the best paths so far by mutation and crossover under hard constraints.

    Parents are drawn uniformly from the `top_k` best candidates so far.

    Parameters
    ----------
    top_k
        Number of candidates, best of all so far, that parents are drawn from.
    **settings
        See `BreedingSearch`: num_mutations, num_crossovers, mutation_prob; and `Search`:
        constraints, population_size, num_generations, objective, seed.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, Algorithm 1; its settings are the defaults.
    """

    Settings: ClassVar[type[Any]] = EvolutionSettings

    def __init__(self, space: PathSpace, costs: Costs, *, top_k: int = 10, **settings: Any):
        super().__init__(space, costs, **settings)
        self.top_k = top_k

    def select(self, generator: np.random.Generator) -> Iterator[PathKey]:
        parents = [self.space.key(candidate.path) for candidate in self.top(self.top_k)]
        while True:
            yield parents[generator.integers(len(parents))]
