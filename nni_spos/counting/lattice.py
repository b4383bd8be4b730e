"""Tables over (label, state, cost): in how many ways a path can be completed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.counting.grid import Units
from nni_spos.counting.plan import Stage

_LIMB_BITS = 40  # Leaves room for sums of 2^22 limbs in 63 bits.


def lengths(units: Units) -> list[int]:
    """Return how many cells the stages from each one on can cost, one more entry at the end."""
    spans = [0]
    for cells in reversed(units):
        spans.append(spans[-1] + int(cells.max()))
    return [span + 1 for span in reversed(spans)]


def _moves(stage: Stage, cells: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return (state, state afterwards, cells) of every choice in every state."""
    num_states, num_options = cells.shape
    states = np.repeat(np.arange(num_states), num_options)
    return list(
        zip(states.tolist(), stage.following.ravel().tolist(), cells.ravel().tolist(), strict=True)
    )


class Lattice:
    """The completions of every state and remaining cost, as floats.

    Parameters
    ----------
    stages
        Decisions in order.
    units
        What they cost in cells.

    Attributes
    ----------
    totals : array, shape (num_cells,)
        Number of paths of each cell.
    """

    def __init__(self, stages: Sequence[Stage], units: Units):
        self.stages = list(stages)
        self.units = units
        self.lengths = lengths(units)
        # Zeros around the completions of a stage make every look-up from the stage before valid.
        self._pads = [0, *(int(cells.max()) for cells in units)]
        rows: list[npt.NDArray[np.float64]] = [np.zeros((1, 2 * self._pads[-1] + 1))]
        rows[0][0, self._pads[-1]] = 1.0
        for i in reversed(range(len(units))):
            length, pad = self.lengths[i], self._pads[i]
            row = np.zeros((len(units[i]), length + 2 * pad))
            inner, after = row[:, pad : pad + length], self._inner(rows[-1], i + 1)
            for state, following, cells in _moves(stages[i], units[i]):
                inner[state, cells : cells + self.lengths[i + 1]] += after[following]
            rows.append(row)
        self._rows = rows[::-1]
        self.totals = self._inner(self._rows[0], 0)[0]
        self._offsets = [
            stage.following * self._rows[i + 1].shape[1] + self._pads[i + 1] - units[i]
            for i, stage in enumerate(self.stages)
        ]

    def _inner(self, row: npt.NDArray[np.float64], i: int) -> npt.NDArray[np.float64]:
        return row[:, self._pads[i] : self._pads[i] + self.lengths[i]]

    def walk(
        self, cells: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> list[npt.NDArray[np.int64]]:
        """Draw a path of each cell uniformly; one array of options a stage, shape (num_paths,)."""
        remaining = cells.copy()
        states = np.zeros(len(cells), dtype=np.int64)
        drawn = []
        for i, units in enumerate(self.units):
            weights = self._rows[i + 1].take(self._offsets[i].T[:, states] + remaining)
            np.cumsum(weights, axis=0, out=weights)
            # Below the last weight, because random() is below 1: so a possible option is drawn.
            thresholds = generator.random(len(cells)) * weights[-1]
            options = (weights[:-1] <= thresholds).sum(axis=0)
            remaining -= units[states, options]
            states = self.stages[i].following[states, options]
            drawn.append(options)
        return drawn

    def enumerate(self, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the options of all paths of some cells, shape (num_stages, num_paths)."""
        remaining = cells[self.totals[cells] > 0]
        states = np.zeros(len(remaining), dtype=np.int64)
        paths = np.zeros((0, len(remaining)), dtype=np.int64)
        for i, units in enumerate(self.units):
            weights = self._rows[i + 1].take(self._offsets[i].T[:, states] + remaining)
            parents, options = np.nonzero(weights.T)
            paths = np.concatenate([paths[:, parents], options[None]])
            remaining = remaining[parents] - units[states[parents], options]
            states = self.stages[i].following[states[parents], options]
        return paths

    def marginals(self, cells: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
        """Return for every stage the share of its options in the paths of some cells."""
        # A flow that starts with the paths of the cells and divides as `walk` does.
        flow = np.zeros((1, self.lengths[0]))
        flow[0, cells] = self.totals[cells] / self.totals[cells].sum()
        shares = []
        for i, units in enumerate(self.units):
            row, after = self._inner(self._rows[i], i), self._inner(self._rows[i + 1], i + 1)
            flow = np.divide(flow, row, out=np.zeros_like(flow), where=row > 0)
            share = np.zeros(units.shape)
            next_flow = np.zeros_like(after)
            moves = _moves(self.stages[i], units)
            for option, (state, following, cost) in enumerate(moves):
                part = flow[state, cost : cost + self.lengths[i + 1]] * after[following]
                next_flow[following] += part
                share.flat[option] = part.sum()
            flow = next_flow
            shares.append(share.sum(axis=0))
        return shares


def exact_totals(stages: Sequence[Stage], units: Units, size: int) -> npt.NDArray[np.int64]:
    """Return the exact number of paths of each cell, in limbs: shape (num_limbs, num_cells).

    A number is the sum of its limbs i times 2^(40 i); use `exact_sum`.
    """
    spans = lengths(units)
    num_limbs = size.bit_length() // _LIMB_BITS + 1
    row = np.zeros((num_limbs, 1, 1), dtype=np.int64)
    row[0] = 1
    for i in reversed(range(len(units))):
        after, row = row, np.zeros((num_limbs, len(units[i]), spans[i]), dtype=np.int64)
        for state, following, cells in _moves(stages[i], units[i]):
            row[:, state, cells : cells + spans[i + 1]] += after[:, following]
        for limb in range(num_limbs - 1):
            row[limb + 1] += row[limb] >> _LIMB_BITS
            row[limb] &= (1 << _LIMB_BITS) - 1
    return row[:, 0]


def exact_sum(totals: npt.NDArray[np.int64], cells: Any) -> int:
    """Sum numbers given in limbs over some cells."""
    return sum(int(limb[cells].sum()) << (_LIMB_BITS * i) for i, limb in enumerate(totals))


def reachable(stages: Sequence[Stage], units: Units) -> int:
    """Return the cells that hold a path, as the set bits of a number."""
    row = [1]
    for i in reversed(range(len(units))):
        after, row = row, [0] * len(units[i])
        for state, following, cells in _moves(stages[i], units[i]):
            row[state] |= after[following] << cells
    return row[0]


def size(stages: Sequence[Stage]) -> int:
    """Return the number of paths."""
    return math.prod(len(stage.positions) for stage in stages)
