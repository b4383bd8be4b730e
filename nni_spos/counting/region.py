"""The paths that keep some limits: how many they are, and uniform draws of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable
from nni_spos.counting.plan import Options, all_options
from nni_spos.errors import InfeasibleError
from nni_spos.path import Choice, Indices, PathSpace

Marginals = Mapping[str, Mapping[Choice, float]]
"""Label to choice to probability."""

_BLOCK = 8192  # Paths proposed at once: their arrays stay in the processor's cache.


class Region(ABC):
    """The paths of a space that keep limits.

    A subclass proposes paths uniformly from a set that holds the region; those that keep the
    limits are accepted.

    Parameters
    ----------
    space
        Labels and their choices.
    tables
        Cost tables of the space.
    limits
        One constraint for each table.
    num_proposals
        How many different paths can be proposed.
    """

    min_tries = 1_000_000
    tries_per_path = 10_000
    """A draw gives up when it has proposed `min_tries` paths and so many for each wanted one."""
    MEASURED = 20_000
    """Proposed paths that `acceptance` is measured on at least."""
    SAMPLES = 100_000
    """Draws that marginals are measured on where they cannot be counted."""

    def __init__(
        self,
        space: PathSpace,
        tables: Sequence[CostTable],
        limits: Sequence[Constraint],
        num_proposals: float,
    ):
        self.space = space
        self.tables = tuple(tables)
        self.limits = tuple(limits)
        self.num_proposals = num_proposals
        self._proposed = 0
        self._accepted = 0

    @abstractmethod
    def _propose(self, num_paths: int, generator: np.random.Generator) -> Indices:
        """Draw paths uniformly and independently from a set that holds the region."""

    @abstractmethod
    def enumerate(self) -> Indices:
        """Return all paths of the region: for few `num_proposals`."""

    @property
    @abstractmethod
    def never_rejects(self) -> bool:
        """Whether every proposed path keeps the limits."""

    @property
    def counts_exactly(self) -> bool:
        """Whether `count` is exact and not an estimate."""
        return self.never_rejects

    @property
    def acceptance(self) -> float:
        """Share of the paths proposed so far that keep the limits."""
        if self.never_rejects:
            return 1.0
        if self._proposed < self.MEASURED:
            self.accepted(self.MEASURED, np.random.default_rng(0))
        return self._accepted / self._proposed

    def count(self) -> int:
        """Return the number of paths: exact if `counts_exactly`, else estimated by `acceptance`."""
        # Fractions, because a space may have more paths than floats reach.
        return round(Fraction(self.num_proposals) * Fraction(self.acceptance))

    def is_empty(self) -> bool:
        """Whether there is no path, or none was found in as many tries as a draw makes."""
        try:
            self.draw(1, np.random.default_rng(0))
        except InfeasibleError:
            return True
        return False

    def contains(self, indices: Indices) -> npt.NDArray[np.bool_]:
        """Which of the paths (num_paths, num_labels) keep the limits, shape (num_paths,)."""
        keep = np.ones(len(indices), dtype=np.bool_)
        for limit, table in zip(self.limits, self.tables, strict=True):
            costs = table.price_many(indices)
            keep &= (costs >= limit.low) & (costs <= limit.high)
        return keep

    def accepted(self, num_proposals: int, generator: np.random.Generator) -> Indices:
        """Propose paths and return those that keep the limits: uniform, independent draws."""
        proposed = self._propose(num_proposals, generator)
        kept = proposed if self.never_rejects else proposed[self.contains(proposed)]
        self._proposed += num_proposals
        self._accepted += len(kept)
        return kept

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        """Draw paths uniformly and independently, as positions of (num_paths, num_labels).

        Raises
        ------
        InfeasibleError
            Nearly all proposed paths broke the limits; the message says how many.
        """
        # The sizes of the blocks must not depend on earlier draws: what is drawn is a function of
        # the generator.
        accepted = [np.zeros((0, len(self.space)), dtype=np.int64)]
        missing, tries = num_paths, 0
        while missing > 0:
            if tries >= max(self.min_tries, num_paths * self.tries_per_path):
                raise self._given_up(num_paths - missing, tries)
            block = min(missing if self.never_rejects else max(2 * missing, 64), _BLOCK)
            accepted.append(self.accepted(block, generator)[:missing])
            missing -= len(accepted[-1])
            tries += block
        return np.concatenate(accepted)

    def marginals(self) -> Marginals:
        """Return the probability of every choice of every label among the paths of the region.

        Measured on `SAMPLES` draws where it cannot be counted.
        """
        return self._shares_in(self.draw(self.SAMPLES, np.random.default_rng(0)))

    def _shares_in(self, paths: Indices) -> Marginals:
        return self._named(
            np.bincount(column, minlength=n) / len(paths)
            for column, n in zip(paths.T, self.space.num_choices, strict=True)
        )

    def _named(self, shares: Iterable[npt.NDArray[np.float64]]) -> Marginals:
        return {
            label: dict(zip(choices, share.tolist(), strict=True))
            for (label, choices), share in zip(self.space.items(), shares, strict=True)
        }

    def _given_up(self, found: int, tries: int) -> InfeasibleError:
        return InfeasibleError(
            f"only {found} of {tries} paths drawn keep {self._limits()} (a share of "
            f"{found / tries:.1e}). Widen the limits."
        )

    def _limits(self) -> str:
        return " and ".join(f"'{limit}'" for limit in self.limits)


class UniformRegion(Region):
    """A region that is drawn from by trying uniform paths of the space.

    Parameters
    ----------
    space, tables, limits
        See `Region`.
    options
        For every label the positions of the choices that a path may make; by default all.
    """

    def __init__(
        self,
        space: PathSpace,
        tables: Sequence[CostTable],
        limits: Sequence[Constraint],
        options: Options | None = None,
    ):
        options = all_options(space) if options is None else options
        num_options = [len(positions) for positions in options]
        super().__init__(space, tables, limits, math.prod(num_options))
        self._num_options = np.array(num_options)
        self._positions = np.zeros((len(options), max(num_options)), dtype=np.int64)
        for column, positions in enumerate(options):
            self._positions[column, : len(positions)] = positions

    @property
    def never_rejects(self) -> bool:
        """Whether every proposed path keeps the limits."""
        return not self.limits

    def enumerate(self) -> Indices:
        """Return all paths of the region in lexicographic order: for few `num_proposals`."""
        rest = np.arange(self.num_proposals, dtype=np.int64)
        paths = np.empty((len(rest), len(self.space)), dtype=np.int64)
        for column in reversed(range(len(self.space))):
            rest, places = np.divmod(rest, self._num_options[column])
            paths[:, column] = self._positions[column, places]
        return paths[self.contains(paths)]

    def _propose(self, num_paths: int, generator: np.random.Generator) -> Indices:
        drawn = generator.integers(0, self._num_options, size=(num_paths, len(self.space)))
        return self._positions[np.arange(len(self.space)), drawn]
