"""Random paths that meet the constraints, and the proof that there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs, CostTable
from nni_spos.counting import (
    MAX_ENTRIES,
    Options,
    PathCounter,
    Region,
    UniformRegion,
    all_options,
    cost_extent,
    describe_extent,
    make_region,
)
from nni_spos.errors import ConstraintError, CostError, InfeasibleError
from nni_spos.metrics.units import unknown_metric
from nni_spos.path import Indices, PathKey, PathSpace


class FeasibleSampler:
    """Draw uniformly among the paths that meet every constraint, however few they are.

    Up to `ENUMERATE_BELOW` feasible paths are listed, so that drawing without repetition ends
    exactly when every one has been drawn. More are drawn by counting (see `nni_spos.counting`);
    proposed paths that break a limit that was not counted are left out, and `MAX_DRAWS` bounds
    the paths proposed in a call.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric.
    constraints
        Limits that a path must keep, all of them.

    Attributes
    ----------
    share : float
        Share of the space's paths that meet every constraint; estimated if some draws can break
        one.

    Raises
    ------
    ConstraintError
        A constraint is on a metric without a cost table.
    InfeasibleError
        No path keeps the constraints; the message gives the cheapest and the dearest path's cost.
    """

    ENUMERATE_BELOW = 100_000
    MAX_DRAWS = 2_000_000
    _BLOCK = 4096
    # Of a call of `within`, which is for a path or two.
    _LIST_WITHIN = 4096
    _WITHIN = 4096
    _WITHIN_BLOCK = 256
    _WITHIN_ENTRIES = 500_000  # of the table for drawing, 8 bytes each

    def __init__(self, space: PathSpace, costs: Costs, constraints: Sequence[Constraint] = ()):
        self.space = space
        for limit in constraints:
            if limit.metric not in costs:
                raise ConstraintError(
                    f"constraint '{limit}': {unknown_metric(limit.metric, costs)}"
                )
        self.constraints = tuple(in_unit(x, costs) for x in constraints)
        self._extents: dict[str, str] = {}
        limits: dict[str, list[Constraint]] = {}
        for limit in self.constraints:
            self._check_extent(limit, costs[limit.metric])
            limits.setdefault(limit.metric, []).append(limit)
        self._tables = [costs[metric] for metric in limits]
        self._limits: list[Constraint] = []
        for several in limits.values():
            low, high = max(x.low for x in several), min(x.high for x in several)
            if low > high:
                raise self._nothing(f"the space's {space.size} paths")
            self._limits.append(Constraint(several[0].metric, low, high))
        self._region = self._make_region(all_options(space), self.ENUMERATE_BELOW, MAX_ENTRIES)
        self._region.min_tries = self.MAX_DRAWS
        listed = self._region.num_proposals <= self.ENUMERATE_BELOW
        self._all = self._region.enumerate() if listed else None
        if self._all is not None and not len(self._all):
            raise self._nothing(f"the space's {space.size} paths")
        if self._all is None and self._region.is_empty():
            tried = "" if self._region.counts_exactly else f"{self.MAX_DRAWS} random paths of "
            raise self._nothing(f"{tried}the space's {space.size} paths")
        # Once and for all: a search that depends on it must not depend on what was drawn before.
        num_found = len(self._all) if self._all is not None else self._region.num_proposals
        self.share = self.acceptance * (num_found / space.size)

    @property
    def acceptance(self) -> float:
        """Share of the paths proposed so far that met every constraint; 1 where none can fail."""
        return 1.0 if self._all is not None else self._region.acceptance

    def feasible(self, indices: Indices) -> npt.NDArray[np.bool_]:
        """Which of the paths (num_paths, num_labels) meet every constraint, shape (num_paths,)."""
        return self._region.contains(indices)

    def is_feasible(self, key: PathKey) -> bool:
        """Whether one path, given as positions, meets every constraint."""
        return not self.constraints or bool(self.feasible(np.array([key]))[0])

    def stream(self, generator: np.random.Generator, block: int | None = None) -> Iterator[PathKey]:
        """Yield random feasible paths; ends when all were given or `MAX_DRAWS` are spent.

        Where feasible paths are listed, each one is yielded once; else they may repeat. These are
        drawn `block` at a time, which is to be about as many as are taken; by default thousands.
        """
        if self._all is not None:
            return _shuffled(self._all, generator)
        return _drawn(self._region, self.MAX_DRAWS, block or self._BLOCK, generator)

    def within(self, options: Options, generator: np.random.Generator) -> Iterator[PathKey]:
        """Yield random feasible paths that make only some choices, in bounded effort.

        Parameters
        ----------
        options
            For every label the positions of the choices that a path may make.
        generator
            Source of randomness.
        """
        region = self._make_region(options, self._LIST_WITHIN, self._WITHIN_ENTRIES)
        if region.num_proposals <= self._LIST_WITHIN:
            return _shuffled(region.enumerate(), generator)
        return _drawn(region, self._WITHIN, self._WITHIN_BLOCK, generator)

    def _make_region(self, options: Options, few: int, max_entries: int) -> Region:
        if math.prod(map(len, options)) <= few:
            return UniformRegion(self.space, self._tables, self._limits, options)
        return make_region(self.space, self._tables, self._limits, options, max_entries)

    def _check_extent(self, limit: Constraint, table: CostTable) -> None:
        try:
            low, high = cost_extent(table)
        except CostError:  # its factors hang together too much: draws have to tell
            return
        extent = describe_extent(limit.metric, low, high)
        if low > limit.high or high < limit.low:
            raise InfeasibleError(f"no path meets '{limit}': {extent}.")
        self._extents[limit.metric] = extent

    def _nothing(self, tried: str) -> InfeasibleError:
        limits = " and ".join(f"'{limit}'" for limit in self.constraints)
        known = "; ".join([*self._extents.values(), *self._nearest()])
        known = f"{known}. " if known else ""
        return InfeasibleError(f"none of {tried} meets {limits}. {known}Widen the limits.")

    def _nearest(self) -> list[str]:
        """Say which costs are nearest to the limits on a single metric, where it is possible."""
        if len(self._limits) != 1:
            return []
        try:
            costs = PathCounter(self._tables).describe_nearest(self._limits[0])
        except CostError:
            return []
        return [f"the nearest cost is {costs}"]


def in_unit(limit: Constraint, costs: Costs) -> Constraint:
    """Return a limit in the unit of its metric, which a share needs the cost table of."""
    return limit.of(float(costs[limit.metric].dearest()[0])) if limit.is_share else limit


def _shuffled(paths: Indices, generator: np.random.Generator) -> Iterator[PathKey]:
    for i in generator.permutation(len(paths)):
        yield tuple(paths[i].tolist())


def _drawn(
    region: Region, max_draws: int, block: int, generator: np.random.Generator
) -> Iterator[PathKey]:
    for _ in range(max_draws // block):
        for row in region.accepted(block, generator):
            yield tuple(row.tolist())
