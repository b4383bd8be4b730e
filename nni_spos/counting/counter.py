"""How many paths have which costs, and regions of cost to draw from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Number
from nni_spos.counting import grid, lattice
from nni_spos.counting.grid import Axis
from nni_spos.counting.lattice import Lattice
from nni_spos.counting.plan import Options, Stage, all_options, plan
from nni_spos.counting.region import Marginals, Region
from nni_spos.errors import CostError, InfeasibleError
from nni_spos.metrics.units import format_metric
from nni_spos.path import Indices

MAX_ENTRIES = 4_000_000
"""Entries of the drawing table, 8 bytes each; costs are counted in coarser cells to keep it."""
MIN_CELLS_PER_STAGE = 8
"""Cells that an axis needs for each label: with fewer, most draws would be rejected."""
MAX_EXACT_CELLS = 2**21
"""Cells, times states, of the largest grid that paths are counted exactly on."""
MAX_BITS = 2**24
"""Cells of the largest grid that reachable costs are marked on."""


class PathCounter:
    """Count the paths of a space by cost, and draw uniformly among those of certain costs.

    Parameters
    ----------
    tables
        Cost tables of one space: the metrics that are counted together.
    options
        For every label the positions of the choices that a path may make; by default all.
    max_entries
        Size of the table for drawing.

    Raises
    ------
    CostError
        Factors hang together so much, or so many metrics are counted together, that the table
        would be too coarse; or the space has more than 2^1000 paths.

    Examples
    --------
    >>> from nni_spos.cost_table import Factor
    >>> from nni_spos.path import PathSpace
    >>> space = PathSpace({f"layer_{i}": ["k3", "k5", "k7"] for i in range(20)})
    >>> factors = [Factor((label,), np.array([9, 25, 49])) for label in space]
    >>> counter = PathCounter([CostTable("flops", space, 0, factors)])
    >>> counter.count(180, 200)
    21
    >>> counter.count(0, 1000) == 3**20
    True
    """

    def __init__(
        self,
        tables: Sequence[CostTable],
        options: Options | None = None,
        max_entries: int = MAX_ENTRIES,
    ):
        self.tables = tuple(tables)
        self.space = self.tables[0].space
        other = [table.metric for table in self.tables if table.space != self.space]
        if other:
            raise CostError(
                f"cost tables {self.tables[0].metric} and {other[0]} belong to different spaces."
            )
        self.options = [list(p) for p in (all_options(self.space) if options is None else options)]
        self.stages, self._bases = plan(self.tables, self.options)
        if self.size > 2**1000:
            raise CostError("the space has more than 2^1000 paths, too many to count.")
        self._axes = self._lay_axes(max_entries)
        self._lattice = Lattice(self.stages, grid.flatten(self._axes))

    @property
    def size(self) -> int:
        """Number of paths under the options."""
        return lattice.size(self.stages)

    @property
    def exact(self) -> bool:
        """Whether every cell is one cost, so that no draw is ever rejected."""
        return all(axis.exact for axis in self._axes)

    @property
    def totals(self) -> npt.NDArray[np.float64]:
        """Number of paths of every cell, shape (num_cells,)."""
        return self._lattice.totals

    def within(self, *limits: Constraint) -> CountedRegion:
        """Return the region of the paths that keep the limits, one for each table in order."""
        return CountedRegion(self, limits)

    def count(self, low: float = -math.inf, high: float = math.inf) -> int:
        """Return the number of paths whose cost (of the first table) lies in a closed interval.

        See `Region.count`.
        """
        everything = [Constraint(table.metric) for table in self.tables[1:]]
        return self.within(Constraint(self.tables[0].metric, low, high), *everything).count()

    def distribution(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
        """Return the costs of the first table that occur, and how many paths have each.

        Raises
        ------
        CostError
            The costs are not whole multiples of a number that is large enough.
        """
        if not self.exact or len(self._axes) > 1:
            raise CostError(
                f"the costs of {self.tables[0].metric} lie too close together to list them."
            )
        cells = np.flatnonzero(self.totals)
        axis = self._axes[0]
        return axis.base + cells * axis.resolution, self.totals[cells]

    def extent(self) -> tuple[Number, Number]:
        """Return the lowest and the highest cost of the first table."""
        return _extent(self.tables[0], self.stages, self.options)

    def nearest(self, low: float, high: float) -> tuple[Number | None, Number | None]:
        """Return the costs next to an interval without a path, below and above; None without one.

        Costs of the first table. If they are not whole numbers, the result is exact to a millionth
        of their range only, and so are the bounds.
        """
        axis = grid.make_axis(self.stages, 0, self.tables[0], self._bases[0], MAX_BITS)
        cells = lattice.reachable(self.stages, axis.units)
        window = axis.window(Constraint(self.tables[0].metric, low, high))
        # Without an exact axis the border cells of the window may hold paths of either side.
        first, last = window.start, window.stop
        if not axis.exact:
            first = last = (window.start + window.stop) // 2
        below = cells & ((1 << first) - 1)
        above = cells >> last
        return (
            axis.cost(below.bit_length() - 1) if below else None,
            axis.cost(last + (above & -above).bit_length() - 1) if above else None,
        )

    def describe_nearest(self, limit: Constraint) -> str:
        """Return what `nearest` finds as text, e.g. ``10 below and 20 above``."""
        costs = zip(self.nearest(limit.low, limit.high), ("below", "above"), strict=True)
        return " and ".join(f"{cost:.15g} {side}" for cost, side in costs if cost is not None)

    # What regions use.

    def cells_within(self, limits: Sequence[Constraint]) -> npt.NDArray[np.int64]:
        """Return all cells that may hold a path which keeps the limits."""
        cells = grid.window_cells(self._axes, limits)
        cells = cells[cells < len(self.totals)]
        return cells[self.totals[cells] > 0]

    def walk(
        self, cells: npt.NDArray[np.int64], generator: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Draw a path of each cell uniformly, as positions of shape (num_paths, num_labels)."""
        return self._paths(self._lattice.walk(cells, generator), len(cells))

    def enumerate(self, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return all paths of some cells, as positions of shape (num_paths, num_labels)."""
        options = self._lattice.enumerate(cells)
        return self._paths(list(options), options.shape[1])

    def marginals(self, cells: npt.NDArray[np.int64]) -> list[npt.NDArray[np.float64]]:
        """Return for every label the probabilities of all its choices in some cells."""
        shares = [np.zeros(n) for n in self.space.num_choices]
        for column, positions in enumerate(self.options):
            shares[column][positions[0]] = 1.0
        for stage, share in zip(self.stages, self._lattice.marginals(cells), strict=True):
            shares[stage.column][stage.positions] = share
        return shares

    def exact_count(self, limits: Sequence[Constraint]) -> int | None:
        """Count the paths that keep the limits exactly, or return None where it is not possible."""
        if self._exact_totals is None:
            return None
        axes, totals = self._exact_totals
        cells = grid.window_cells(axes, limits)
        return lattice.exact_sum(totals, cells[cells < totals.shape[1]])

    @cached_property
    def _exact_totals(self) -> tuple[list[Axis], npt.NDArray[np.int64]] | None:
        axes = self._axes
        if not self.exact:
            wanted = self._exact_cells()
            needed = math.prod(n or MAX_EXACT_CELLS for n in wanted)
            num_states = max((len(stage.following) for stage in self.stages), default=1)
            if None in wanted or needed * num_states > MAX_EXACT_CELLS:
                return None
            axes = self._make_axes([needed] * len(wanted))
        return axes, lattice.exact_totals(self.stages, grid.flatten(axes), self.size)

    def _exact_cells(self) -> list[int | None]:
        return [grid.exact_cells(self.stages, i, table) for i, table in enumerate(self.tables)]

    def _lay_axes(self, max_entries: int) -> list[Axis]:
        """Divide the entries of the drawing table among the axes."""
        costs = [stage.costs[0].max() for stage in self.stages]
        total = sum(costs) or 1
        # Entries for each cell of the grid: rows get shorter as less cost is left to come, and
        # have zeros around them.
        entries, left = 1.0, 1.0
        for stage, cost in zip(self.stages, costs, strict=True):
            entries += len(stage.following) * (left + 2 * cost / total)
            left -= cost / total
        wanted = self._exact_cells()
        cells = grid.shares(wanted, int(max_entries / entries))
        for share, limit in zip(cells, wanted, strict=True):
            if share < MIN_CELLS_PER_STAGE * len(self.stages) and share != limit:
                raise CostError(
                    f"counting paths by {' and '.join(t.metric for t in self.tables)} needs more "
                    f"than {max_entries} entries."
                )
        return self._make_axes(cells)

    def _make_axes(self, max_cells: Sequence[int]) -> list[Axis]:
        return [
            grid.make_axis(self.stages, number, table, self._bases[number], share)
            for number, (table, share) in enumerate(zip(self.tables, max_cells, strict=True))
        ]

    def _paths(
        self, options: Sequence[npt.NDArray[np.int64]], num_paths: int
    ) -> npt.NDArray[np.int64]:
        paths = np.empty((len(self.space), num_paths), dtype=np.int64)
        for column, positions in enumerate(self.options):
            if len(positions) == 1:
                paths[column] = positions[0]
        for stage, drawn in zip(self.stages, options, strict=True):
            paths[stage.column] = stage.positions[drawn]
        return paths.T


class CountedRegion(Region):
    """A region that is drawn from by counting; see `nni_spos.counting` for how and why.

    Parameters
    ----------
    counter
        Counts the paths of some tables.
    limits
        One constraint for each of its tables.
    other_tables, other_limits
        More limits, whose tables do not guide the draws: paths that break them are rejected.
    """

    LIST_BELOW = 20_000
    """Where draws may be rejected and so few paths can be proposed, all are tried once."""

    def __init__(
        self,
        counter: PathCounter,
        limits: Sequence[Constraint],
        other_tables: Sequence[CostTable] = (),
        other_limits: Sequence[Constraint] = (),
    ):
        self._counter = counter
        self._cells = counter.cells_within(limits)
        self._cumulative = np.cumsum(counter.totals[self._cells])
        num_proposals = self._cumulative[-1].item() if len(self._cells) else 0.0
        super().__init__(
            counter.space,
            (*counter.tables, *other_tables),
            (*limits, *other_limits),
            num_proposals,
        )
        # Whether cells hold exactly the paths that keep the limits.
        self._exact = counter.exact and not other_tables
        self._paths: Indices | None = None
        if not self._exact and num_proposals <= self.LIST_BELOW:
            self._paths = self.enumerate()

    @property
    def never_rejects(self) -> bool:
        """Whether every proposed path keeps the limits."""
        return self._exact or self._paths is not None

    @property
    def counts_exactly(self) -> bool:
        """Whether `count` is exact and not an estimate."""
        return self._paths is not None or self._exact_count() is not None

    def count(self) -> int:
        """Return the number of paths: exact if `counts_exactly`, else estimated by `acceptance`."""
        if self._paths is not None:
            return len(self._paths)
        count = self._exact_count()
        return super().count() if count is None else count

    def is_empty(self) -> bool:
        """Whether there is no path, or none was found in as many tries as a draw makes."""
        if self.never_rejects:
            return self._has_no_proposals
        if len(self.accepted(64, np.random.default_rng(0))):
            return False
        return self._exact_count() == 0 or super().is_empty()

    def enumerate(self) -> Indices:
        """Return all paths of the region: for few `num_proposals`."""
        if self._paths is not None:
            return self._paths
        paths = self._counter.enumerate(self._cells)
        return paths if self._exact else paths[self.contains(paths)]

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        if num_paths and self._has_no_proposals:
            raise self._no_path()
        return super().draw(num_paths, generator)

    def marginals(self) -> Marginals:
        """Return the probability of every choice of every label among the paths of the region.

        Measured on `SAMPLES` draws where it cannot be counted.
        """
        if self._has_no_proposals:
            raise self._no_path()
        if self._paths is not None:
            return self._shares_in(self._paths)
        if self._exact:
            return self._named(self._counter.marginals(self._cells))
        return super().marginals()

    def _no_path(self) -> InfeasibleError:
        return InfeasibleError(f"no path keeps {self._limits()}. Widen the limits.")

    @property
    def _has_no_proposals(self) -> bool:
        return not len(self._cells if self._paths is None else self._paths)

    def _exact_count(self) -> int | None:
        if not len(self._cells):
            return 0
        if len(self.tables) > len(self._counter.tables):
            return None
        return self._counter.exact_count(self.limits)

    def _propose(self, num_paths: int, generator: np.random.Generator) -> Indices:
        if self._has_no_proposals:
            return np.zeros((0, len(self.space)), dtype=np.int64)
        if self._paths is not None:
            return self._paths[generator.integers(len(self._paths), size=num_paths)]
        # Below the last entry, because random() is below 1.
        thresholds = generator.random(num_paths) * self._cumulative[-1]
        places = np.searchsorted(self._cumulative, thresholds, side="right")
        return self._counter.walk(self._cells[places], generator)


def cost_extent(table: CostTable) -> tuple[Number, Number]:
    """Return the lowest and the highest cost of a table, as `PathCounter.extent` does."""
    options = all_options(table.space)
    stages, _ = plan([table], options)
    return _extent(table, stages, options)


def describe_extent(metric: str, low: Number, high: Number) -> str:
    """Return in words between which costs the paths of a space lie."""
    return (
        f"{metric} of this space lies between {format_metric(metric, low)} (cheapest path) "
        f"and {format_metric(metric, high)} (dearest path)"
    )


def _extent(table: CostTable, stages: Sequence[Stage], options: Options) -> tuple[Number, Number]:
    return _lowest(table, stages, options, 1), _lowest(table, stages, options, -1)


def _lowest(table: CostTable, stages: Sequence[Stage], options: Options, sign: int) -> Number:
    """Return the price of a path whose cost times the sign is lowest."""
    rests: list[npt.NDArray[Any]] = [np.zeros(1, dtype=np.int64)]
    for stage in reversed(stages):
        rests.append((sign * stage.costs[0] + rests[-1][stage.following]).min(axis=1))
    path = np.array([positions[0] for positions in options])
    state = 0
    for stage, rest in zip(stages, rests[-2::-1], strict=True):
        costs = sign * stage.costs[0][state] + rest[stage.following[state]]
        option = int(np.argmin(costs))
        path[stage.column] = stage.positions[option]
        state = int(stage.following[state, option])
    return table.price_many(path[None])[0].item()
