"""The best of many, without looking at all of them again."""

from __future__ import annotations

from bisect import bisect_right

from nni_spos.evolution.candidate import Candidate, State


class Ranking:
    """Finished candidates by their score, best first; ties go to the earlier proposed.

    The first few places are kept sorted, as many as were ever asked for. A new candidate is
    compared with these only, so it costs the same however many there were before.

    Parameters
    ----------
    objective
        Name of the result that is to be as high as possible.
    """

    def __init__(self, objective: str):
        self.objective = objective
        self._candidates: list[Candidate] = []
        self._best: list[Candidate] = []
        self._num_kept = 1

    def __len__(self) -> int:
        return len(self._candidates)

    def add(self, candidate: Candidate) -> None:
        """Take a candidate that is finished."""
        assert candidate.state is State.DONE
        self._candidates.append(candidate)
        place = bisect_right(self._best, self._order(candidate), key=self._order)
        if place < self._num_kept:
            self._best.insert(place, candidate)
            del self._best[self._num_kept :]

    def top(self, count: int) -> list[Candidate]:
        """Return the first candidates, as many as there are of `count`."""
        if count > self._num_kept:
            self._num_kept = count
            self._best = sorted(self._candidates, key=self._order)[:count]
        return self._best[:count]

    def since(self, count: int) -> list[Candidate]:
        """Return the candidates that were added after the first `count`."""
        return self._candidates[count:]

    def _order(self, candidate: Candidate) -> tuple[float, int]:
        return -candidate.metrics[self.objective], candidate.number
