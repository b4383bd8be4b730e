"""A search around the best path so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nni_spos.evolution import Search
from nni_spos.evolution.mutation import mutate
from nni_spos.path import PathKey
from nni_spos.recipe.settings import real, setting


class Local(Search):
    """Evaluate random paths, then those that differ from the best in a few units.

    Parameters
    ----------
    *space_and_costs
        As for `nni_spos.evolution.Search`.
    reach
        Share of the units in which a path differs.
    **settings
        As for `nni_spos.evolution.Search`.
    """

    @dataclass(frozen=True)
    class Settings:
        """What a recipe says.

        Parameters
        ----------
        reach
            Share of the units in which a path differs from the best.
        """

        reach: float = setting(real(0, 1), 0.2)

    TRIES = 1000

    def __init__(self, *space_and_costs: Any, reach: float = 0.2, **settings: Any):
        super().__init__(*space_and_costs, **settings)
        self.reach = reach

    def propose(self, generator: np.random.Generator) -> Iterator[PathKey]:
        """Propose the neighbours of the best path, then random ones."""
        for best in self.top(1):
            key = self.space.key(best.path)
            for _ in range(self.TRIES):
                neighbour = mutate(key, self.space.num_choices, self.reach, generator)
                if self.is_new(neighbour):
                    yield neighbour
        yield from filter(self.is_new, self.sampler.stream(generator))
