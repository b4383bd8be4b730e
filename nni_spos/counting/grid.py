"""Costs in cells of a grid."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Number
from nni_spos.counting.plan import Stage

Units = list[npt.NDArray[np.int64]]
"""For every stage the cells that a choice costs, shape (num_states, num_options)."""

_MAX_WHOLE = 2**53  # Whole numbers up to this are exact as floats too.
_CANDIDATES = 64


@dataclass(frozen=True)
class Axis:
    """How the costs of one table are counted in cells.

    Parameters
    ----------
    base
        Cost of a path in cell 0 at least.
    resolution
        Width of a cell.
    slack
        How much a path's cost can exceed that of its cell.
    rounding
        How much adding floats can change a path's cost.
    exact
        Whether costs are whole multiples of the resolution, so that a cell is one cost.
    units
        Cells that the choices cost.
    num_cells
        Of the whole grid.
    """

    base: Number
    resolution: Number
    slack: Number
    rounding: float
    exact: bool
    units: Units
    num_cells: int

    def window(self, limit: Constraint) -> range:
        """Return the cells of all paths that the limit allows; if `exact`, of no others."""
        if self.exact:
            base, step = Fraction(self.base), Fraction(self.resolution)
            low, high = (
                (Fraction(bound) - base) / step if math.isfinite(bound) else bound
                for bound in (limit.low, limit.high)
            )
        else:
            # One cell more on either side, because the cells were found in rounded arithmetic.
            low = (limit.low - self.base - self.slack - self.rounding) / self.resolution - 1
            high = (limit.high - self.base + self.rounding) / self.resolution + 1
        first = math.ceil(min(max(low, 0), self.num_cells))
        last = math.floor(min(max(high, -1), self.num_cells - 1))
        return range(first, max(first, last + 1))

    def cost(self, cell: int) -> Number:
        """Return the cost of a cell's paths: exact, or the middle of what they can cost."""
        cost = self.base + cell * self.resolution
        return cost if self.exact else cost + self.slack / 2


def common_unit(stages: Sequence[Stage], number: int, table: CostTable) -> int:
    """Return the greatest number that all cost differences of a table are multiples of.

    0 if its costs are not whole numbers, or so large that floats would round them.
    """
    if _magnitude(table) >= _MAX_WHOLE or not float(table.constant).is_integer():
        return 0
    unit = 0
    for stage in stages:
        costs = stage.costs[number]
        if costs.dtype.kind == "f" and (costs != np.rint(costs)).any():
            return 0
        unit = math.gcd(unit, int(np.gcd.reduce(costs.astype(np.int64), axis=None)))
    return unit or 1


def make_axis(
    stages: Sequence[Stage], number: int, table: CostTable, base: Number, max_cells: int
) -> Axis:
    """Lay a grid of at most `max_cells` cells over the costs of the table of a number."""
    unit = common_unit(stages, number, table)
    costs = [stage.costs[number] for stage in stages]
    total = sum(cost.max().item() for cost in costs)
    if unit and total // unit < max_cells:
        units = [(cost // unit).astype(np.int64) for cost in costs]
        return Axis(base, unit, 0, 0.0, True, units, int(total // unit) + 1)
    rounding = _magnitude(table) * 2**-45
    finest = max(total / (max_cells - 1), rounding, sys.float_info.min)
    # Costs are often near multiples of some number: a slightly coarser grid can leave less slack.
    tried = np.linspace(finest, 1.5 * finest, _CANDIDATES)
    slacks = [sum((cost % width).max() for cost in costs) for width in tried]
    resolution = tried[int(np.argmin(slacks))].item()
    units = [np.floor(cost / resolution).astype(np.int64) for cost in costs]
    slack = sum(
        (cost - resolution * cells).max().item() for cost, cells in zip(costs, units, strict=True)
    )
    num_cells = sum(int(cells.max()) for cells in units) + 1
    return Axis(base, resolution, slack, rounding, False, units, num_cells)


def exact_cells(stages: Sequence[Stage], number: int, table: CostTable) -> int | None:
    """Return how many cells an exact grid needs, or None if there is none."""
    unit = common_unit(stages, number, table)
    if not unit:
        return None
    return int(sum(stage.costs[number].max().item() for stage in stages) // unit) + 1


def _magnitude(table: CostTable) -> float:
    """Return a bound of every number that is met when paths are priced."""
    return abs(table.constant) + sum(float(np.abs(factor.table).max()) for factor in table.factors)


def shares(wanted: Sequence[int | None], max_cells: int) -> list[int]:
    """Divide a number of cells among axes: none gets more than it wants (None: no limit)."""
    cells = [0] * len(wanted)
    limits = [math.inf if limit is None else limit for limit in wanted]
    for done, i in enumerate(sorted(range(len(wanted)), key=limits.__getitem__)):
        share = max(2, math.floor(max_cells ** (1 / (len(wanted) - done))))
        cells[i] = int(min(limits[i], share))
        max_cells = max(1, max_cells // cells[i])
    return cells


def flatten(axes: Sequence[Axis]) -> Units:
    """Number the cells of several axes in one row.

    No sum of a path's cells exceeds an axis, so adding numbers adds the cells of every axis.
    """
    flat = [np.zeros_like(cells) for cells in axes[0].units]
    for axis in axes:
        flat = [a * axis.num_cells + b for a, b in zip(flat, axis.units, strict=True)]
    return flat


def window_cells(axes: Sequence[Axis], limits: Sequence[Constraint]) -> npt.NDArray[np.int64]:
    """Return the numbers of the cells that lie in all windows."""
    flat: npt.NDArray[Any] = np.zeros(1, dtype=np.int64)
    for axis, limit in zip(axes, limits, strict=True):
        window = axis.window(limit)
        places = np.arange(window.start, window.stop, dtype=np.int64)
        flat = (flat[:, None] * axis.num_cells + places).ravel()
    return flat
