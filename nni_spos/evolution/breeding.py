"""Mutants and children of selected parents: what evolution and NSGA-II have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nni_spos.cost_table import Costs
from nni_spos.errors import RecipeError
from nni_spos.evolution.crossover import crossover, crossover_options
from nni_spos.evolution.mutation import mutate, mutation_options
from nni_spos.evolution.search import Search
from nni_spos.path import PathKey, PathSpace
from nni_spos.recipe.settings import COUNT, optional, real, setting

_Bred = tuple[PathKey, list[Sequence[int]]]
"""A mutant or child, and what its units may be instead."""


@dataclass(frozen=True)
class BreedingSettings:
    """What a recipe says of a search that breeds.

    Parameters
    ----------
    num_mutations, num_crossovers
        Wanted mutants and children of a generation; by default half of the population each.
    mutation_prob
        Probability that a mutation re-draws a unit.
    """

    num_mutations: int | None = setting(optional(COUNT), None)
    num_crossovers: int | None = setting(optional(COUNT), None)
    mutation_prob: float = setting(real(0, 1), 0.1)

    def beside(self, section: Any) -> BreedingSettings:
        """Refuse more mutants and children than a generation has room for. Raises RecipeError."""
        bred = (self.num_mutations or 0) + (self.num_crossovers or 0)
        if bred > section.population_size:
            raise RecipeError(
                "num_mutations + num_crossovers must be at most population_size = "
                f"{section.population_size}, got {bred}."
            )
        return self


class BreedingSearch(Search):
    """Breed each generation from parents that a subclass selects, under hard constraints.

    The first generation is random. Every further one has up to `num_mutations` mutants of a
    selected parent, up to `num_crossovers` children of two of them, and random feasible paths for
    the rest. Mutants and children that break a constraint or were seen before are drawn again, at
    most `TRIES` times for each wanted one.

    Where less than `RARE` of all paths meet the constraints, that seldom suffices. What is still
    wanted then comes from those that broke a constraint: the units that were mutated, or
    inherited, are drawn again uniformly among the paths that meet all constraints. If none of
    these is new, more units are freed at random, one after another and up to half of all.

    Parameters
    ----------
    num_mutations, num_crossovers
        Wanted mutants and children of a generation; together at most `population_size`. By
        default half of the population each.
    mutation_prob
        Probability that a mutation re-draws a unit.
    **settings
        See `Search`: constraints, num_generations, objective, seed.
    """

    Settings: ClassVar[type[Any]] = BreedingSettings
    TRIES = 10
    RARE = 0.01

    def __init__(
        self,
        space: PathSpace,
        costs: Costs,
        *,
        population_size: int = 50,
        num_mutations: int | None = None,
        num_crossovers: int | None = None,
        mutation_prob: float = 0.1,
        **settings: Any,
    ):
        super().__init__(space, costs, population_size=population_size, **settings)
        half = population_size // 2
        self.num_mutations = half if num_mutations is None else num_mutations
        self.num_crossovers = half if num_crossovers is None else num_crossovers
        self.mutation_prob = mutation_prob

    @abstractmethod
    def select(self, generator: np.random.Generator) -> Iterator[PathKey]:
        """Yield parents without end; called when there is at least one finished candidate."""

    def propose(self, generator: np.random.Generator) -> Iterator[PathKey]:
        if self._ranking:
            parents = self.select(generator)

            def mutant() -> _Bred:
                parent = next(parents)
                key = mutate(parent, self.space.num_choices, self.mutation_prob, generator)
                return key, mutation_options(parent, key, self.space.num_choices)

            def child() -> _Bred:
                mother, father = next(parents), next(parents)
                return crossover(mother, father, generator), crossover_options(mother, father)

            yield from self._bred(mutant, self.num_mutations, generator)
            yield from self._bred(child, self.num_crossovers, generator)
        yield from filter(self.is_new, self.sampler.stream(generator))

    def _bred(
        self, breed: Callable[[], _Bred], wanted: int, generator: np.random.Generator
    ) -> Iterator[PathKey]:
        """Yield up to `wanted` new feasible paths made by `breed`, in bounded effort."""
        infeasible: list[list[Sequence[int]]] = []
        attempts = (breed() for _ in range(wanted * self.TRIES))
        while wanted and (attempt := next(attempts, None)):
            key, options = attempt
            if self.is_new(key):
                wanted -= 1
                yield key
            elif not self.sampler.is_feasible(key):
                infeasible.append(options)
        if self.sampler.share >= self.RARE:
            return
        for options in infeasible[:wanted]:
            if repaired := self._repaired(options, generator):
                yield repaired

    def _repaired(
        self, options: list[Sequence[int]], generator: np.random.Generator
    ) -> PathKey | None:
        """Return a new feasible path with choices among the options or, if needed, more."""
        freed = generator.permutation(len(options))[: len(options) // 2]
        for unit in [None, *freed.tolist()]:
            if unit is not None:
                options[unit] = range(self.space.num_choices[unit])
            key = next(filter(self.is_new, self.sampler.within(options, generator)), None)
            if key is not None:
                return key
        return None
