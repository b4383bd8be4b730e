"""Random search: the baseline that an evolution has to beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nni_spos.evolution.search import Search
from nni_spos.path import PathKey


class RandomSearch(Search):
    """Evaluate random feasible paths; parameters as for `Search`."""

    title = "random search"

    def propose(self, generator: np.random.Generator) -> Iterator[PathKey]:
        return filter(self.is_new, self.sampler.stream(generator))
