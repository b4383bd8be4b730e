"""Which candidates can still be among the survivors of NSGA-II."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nni_spos.evolution.candidate import Candidate
from nni_spos.evolution.front import objective_values


class Contenders:
    """Finished candidates that can survive a sorting by fronts, now or when there are more.

    Survivors are taken front by front until there are `num_survivors`. A candidate that as many
    others dominate, lies in a later front than all of these and is never reached; and it changes
    the rank only of those that they dominate too. So it is dropped for good, and a generation
    costs what the contenders do, not what all candidates do.

    Parameters
    ----------
    objective
        Result that is to be as high as possible.
    cost_objectives
        Costs that are to be as low as possible.
    num_survivors
        Most survivors of a sorting.
    """

    def __init__(self, objective: str, cost_objectives: Sequence[str], num_survivors: int):
        self.objective = objective
        self.cost_objectives = cost_objectives
        self.num_survivors = num_survivors
        self.candidates: list[Candidate] = []
        self.values: npt.NDArray[np.float64] = self._values([])
        self._num_dominators: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Take more finished candidates; the rest stays in the order of proposal."""
        for candidate in candidates:
            self._add(candidate)
        order = np.argsort([candidate.number for candidate in self.candidates])
        self._keep(order)

    def _add(self, candidate: Candidate) -> None:
        own = self._values([candidate])
        no_worse, no_better = (self.values <= own).all(axis=1), (self.values >= own).all(axis=1)
        self._num_dominators += no_better & ~no_worse
        self.candidates.append(candidate)
        self.values = np.concatenate([self.values, own])
        self._num_dominators = np.append(self._num_dominators, (no_worse & ~no_better).sum())
        kept = self._num_dominators < self.num_survivors
        if not kept.all():
            self._keep(np.flatnonzero(kept))

    def _keep(self, places: npt.NDArray[np.int64]) -> None:
        self.candidates = [self.candidates[place] for place in places.tolist()]
        self.values = self.values[places]
        self._num_dominators = self._num_dominators[places]

    def _values(self, candidates: Sequence[Candidate]) -> npt.NDArray[np.float64]:
        return objective_values(candidates, self.objective, self.cost_objectives)
