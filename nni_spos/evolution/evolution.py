"""Algorithm 1 of the paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.evolution.crossover import crossover, crossover_options
from nni_spos.evolution.mutation import mutate, mutation_options
from nni_spos.evolution.search import Search
from nni_spos.path import PathKey, PathSpace

_Bred = tuple[PathKey, list[Sequence[int]]]
"""A mutant or child, and what its units may be instead."""


class EvolutionSearch(Search):
    """Evolve the best paths so far by mutation and crossover under hard constraints.

    The first generation is random. Every further one has up to `num_mutations` mutants of the
    `top_k` best candidates so far, up to `num_crossovers` children of two of them, and random
    feasible paths for the rest. Mutants and children that break a constraint or were seen
    before are drawn again, at most `TRIES` times for each wanted one.

    Where less than `RARE` of all paths meet the constraints, that seldom suffices. What is still
    wanted then comes from those that broke a constraint: the units that were mutated, or
    inherited, are drawn again uniformly among the paths that meet all constraints. If none of
    these is new, more units are freed at random, one after another and up to half of all.

    Parameters
    ----------
    top_k
        Number of candidates, best of all so far, that parents are drawn from.
    num_mutations, num_crossovers
        Wanted mutants and children of a generation; together at most `population_size`. By
        default half of the population each.
    mutation_prob
        Probability that a mutation re-draws a unit.
    **settings
        See `Search`: constraints, population_size, num_generations, objective, seed.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, Algorithm 1; its settings are the defaults.
    """

    TRIES = 10
    RARE = 0.01

    def __init__(
        self,
        space: PathSpace,
        costs: Costs,
        *,
        constraints: Sequence[Constraint] = (),
        population_size: int = 50,
        num_generations: int = 20,
        top_k: int = 10,
        num_mutations: int | None = None,
        num_crossovers: int | None = None,
        mutation_prob: float = 0.1,
        objective: str = "top1",
        seed: int = 0,
    ):
        super().__init__(
            space,
            costs,
            constraints=constraints,
            population_size=population_size,
            num_generations=num_generations,
            objective=objective,
            seed=seed,
        )
        half = population_size // 2
        self.top_k = top_k
        self.num_mutations = half if num_mutations is None else num_mutations
        self.num_crossovers = half if num_crossovers is None else num_crossovers
        self.mutation_prob = mutation_prob

    def propose(self, generator: np.random.Generator) -> Iterator[PathKey]:
        parents = [self.space.key(candidate.path) for candidate in self.top(self.top_k)]

        def pick() -> PathKey:
            return parents[generator.integers(len(parents))]

        def mutant() -> _Bred:
            parent = pick()
            key = mutate(parent, self.space.num_choices, self.mutation_prob, generator)
            return key, mutation_options(parent, key, self.space.num_choices)

        def child() -> _Bred:
            mother, father = pick(), pick()
            return crossover(mother, father, generator), crossover_options(mother, father)

        if parents:
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
