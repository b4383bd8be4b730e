"""Random paths that meet the constraints, and the proof that there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint, format_cost
from nni_spos.cost_table import Costs
from nni_spos.errors import ConstraintError, InfeasibleError, nearest
from nni_spos.path import Indices, PathKey, PathSpace


class FeasibleSampler:
    """Draw uniformly among the paths that meet every constraint.

    A space of up to `ENUMERATE_BELOW` paths is enumerated, so that drawing without repetition
    ends exactly when every feasible path has been drawn. In a larger one uniform paths are
    priced in blocks and kept when they are feasible, up to `MAX_DRAWS` a call.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric.
    constraints
        Limits that a path must keep, all of them.

    Raises
    ------
    ConstraintError
        A constraint is on a metric without a cost table.
    InfeasibleError
        No path keeps a constraint; the message gives the cheapest and the dearest path's cost.
    """

    ENUMERATE_BELOW = 100_000
    MAX_DRAWS = 2_000_000
    _BLOCK = 4096

    def __init__(self, space: PathSpace, costs: Costs, constraints: Sequence[Constraint] = ()):
        self.space = space
        self.constraints = tuple(constraints)
        self._tables = []
        self._extents: dict[str, str] = {}
        for limit in self.constraints:
            if limit.metric not in costs:
                raise ConstraintError(
                    f"constraint '{limit}': unknown metric '{limit.metric}'"
                    f"{nearest(limit.metric, costs) or '.'} Metrics: {', '.join(costs)}."
                )
            table = costs[limit.metric]
            low, high = table.cheapest()[0], table.dearest()[0]
            extent = (
                f"{limit.metric} of this space lies between {format_cost(low)} (cheapest path) "
                f"and {format_cost(high)} (dearest path)"
            )
            if low > limit.high or high < limit.low:
                raise InfeasibleError(f"no path meets '{limit}': {extent}.")
            self._tables.append(table)
            self._extents[limit.metric] = extent
        self._all: Indices | None = None
        if space.size <= self.ENUMERATE_BELOW:
            everything = space.enumerate()
            self._all = everything[self.feasible(everything)]
            if not len(self._all):
                raise self._nothing(f"the space's {space.size} paths")
        elif next(self.stream(np.random.default_rng(0)), None) is None:
            raise self._nothing(f"{self.MAX_DRAWS} random paths of the space's {space.size}")

    def feasible(self, indices: Indices) -> npt.NDArray[np.bool_]:
        """Which of the paths (num_paths, num_labels) meet every constraint, shape (num_paths,)."""
        keep = np.ones(len(indices), dtype=np.bool_)
        for limit, table in zip(self.constraints, self._tables, strict=True):
            cost = table.price_many(indices)
            keep &= (cost >= limit.low) & (cost <= limit.high)
        return keep

    def is_feasible(self, key: PathKey) -> bool:
        """Whether one path, given as positions, meets every constraint."""
        return not self.constraints or bool(self.feasible(np.array([key]))[0])

    def stream(self, generator: np.random.Generator) -> Iterator[PathKey]:
        """Yield random feasible paths; ends when all were given or `MAX_DRAWS` are spent.

        An enumerated space yields every feasible path once, a larger one may repeat paths.
        """
        if self._all is not None:
            for i in generator.permutation(len(self._all)):
                yield tuple(self._all[i].tolist())
            return
        for _ in range(self.MAX_DRAWS // self._BLOCK):
            block = generator.integers(
                0, np.array(self.space.num_choices), size=(self._BLOCK, len(self.space))
            )
            for row in block[self.feasible(block)]:
                yield tuple(row.tolist())

    def _nothing(self, tried: str) -> InfeasibleError:
        limits = " and ".join(f"'{limit}'" for limit in self.constraints)
        return InfeasibleError(
            f"none of {tried} meets {limits}. {'; '.join(self._extents.values())}. "
            "Widen the limits."
        )
