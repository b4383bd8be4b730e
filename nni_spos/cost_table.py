"""What a path costs, as a constant plus small tables over the labels.

Every analytic metric (multiply-adds, parameters, later BitOps and latency) is such a table, so
that a path is priced in microseconds, many paths at once with numpy, and the extremes of a
space are known exactly without a search.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.errors import CostError
from nni_spos.path import Choice, Indices, Path, PathSpace
from nni_spos.values import is_finite, shown

Number = int | float
MAX_JOINT_SIZE = 1_000_000
"""Largest joint table that factors which share labels are merged into."""
MAX_COST = 2**63 - 1
"""Largest whole number that NumPy adds up exactly."""


@dataclass(frozen=True)
class Factor:
    """A cost that depends on a few labels.

    Parameters
    ----------
    labels
        Labels that the cost depends on.
    table
        Costs, shape (choices of the first label, choices of the second, ...).
    """

    labels: tuple[str, ...]
    table: npt.NDArray[Any]


class CostTable:
    """One cost metric of every path of a space: a constant plus the factors' entries.

    Parameters
    ----------
    metric
        Name that constraints and results use, e.g. ``flops``.
    space
        Labels and their choices.
    constant
        Cost that every path has.
    factors
        Costs that depend on labels. Whole-number tables stay exact whole numbers.

    Raises
    ------
    CostError
        A factor names an unknown label or one twice, has the wrong shape or an entry that is not
        finite, or costs are too large to be added up.

    Examples
    --------
    >>> space = PathSpace({"layer_1": ["k3", "k5"], "layer_2": ["k3", "k5"]})
    >>> table = CostTable("flops", space, 100, [
    ...     Factor(("layer_1",), np.array([9, 25])), Factor(("layer_2",), np.array([18, 50]))])
    >>> table.price({"layer_1": "k5", "layer_2": "k3"})
    143
    >>> table.cheapest()
    (127, {'layer_1': 'k3', 'layer_2': 'k3'})
    """

    def __init__(
        self, metric: str, space: PathSpace, constant: Number, factors: Iterable[Factor] = ()
    ):
        self.metric = metric
        self.space = space
        self.constant = constant
        self.factors = tuple(factors)
        if not isinstance(metric, str):
            raise CostError(f"the name of a cost must be text, got {shown(metric)}.")
        if not math.isfinite(constant):
            raise CostError(f"cost table {metric}: the constant {shown(constant)} is not finite.")
        columns = {label: column for column, label in enumerate(space)}
        for factor in self.factors:
            _check_factor(factor, metric, space)
        # In Python's numbers, which do not wrap around.
        ends = [(f.table.min().item(), f.table.max().item()) for f in self.factors]
        largest = abs(constant) + sum(max(map(abs, pair)) for pair in ends)
        if not is_finite(largest) or (type(largest) is int and largest > MAX_COST):
            raise CostError(f"cost table {metric}: its costs are too large to be added up.")
        self._columns = [[columns[label] for label in f.labels] for f in self.factors]
        # Nested lists instead of arrays: a Python look-up is ten times faster than numpy's.
        self._lookups = [
            (f.labels, {key: f.table[position].item() for key, position in _entries(f, space)})
            for f in self.factors
        ]

    def price(self, path: Mapping[str, Choice]) -> Number:
        """Return the cost of one path. Raises PathError for a path of another space."""
        try:
            total = self.constant
            for labels, table in self._lookups:
                total += table[tuple([(type(path[label]), path[label]) for label in labels])]
        except (KeyError, TypeError):
            self.space.validate(path)
            raise
        return total

    def price_many(self, indices: Indices) -> npt.NDArray[Any]:
        """Return the costs of paths given as positions, shape (num_paths, num_labels)."""
        indices = np.asarray(indices)
        # Types, not values: NumPy 1 would take a small constant for a small type.
        dtype = np.result_type(np.array(self.constant).dtype, *(f.table for f in self.factors))
        total = np.full(len(indices), self.constant, dtype=dtype)
        for columns, factor in zip(self._columns, self.factors, strict=True):
            total += factor.table[tuple(indices[:, column] for column in columns)]
        return total

    def merged(self) -> tuple[Factor, ...]:
        """Return factors that share no label and sum to the same costs.

        Raises
        ------
        CostError
            Factors hang together so that a joint table would exceed `MAX_JOINT_SIZE` entries.
        """
        groups: list[list[Factor]] = []
        for factor in self.factors:
            touching = [g for g in groups if any(set(f.labels) & set(factor.labels) for f in g)]
            groups = [g for g in groups if not any(g is other for other in touching)]
            groups.append([*itertools.chain.from_iterable(touching), factor])
        return tuple(self._join(group) for group in groups)

    def _join(self, group: list[Factor]) -> Factor:
        labels = [label for label in self.space if any(label in f.labels for f in group)]
        shape = [len(self.space[label]) for label in labels]
        if math.prod(shape) > MAX_JOINT_SIZE:
            raise CostError(
                f"cost table {self.metric}: the costs of {', '.join(labels)} depend on each other "
                f"in more than {MAX_JOINT_SIZE} combinations."
            )
        joint: npt.NDArray[Any] = np.zeros(
            shape, np.result_type(np.int64, *(f.table for f in group))
        )
        for factor in group:
            order = sorted(range(len(factor.labels)), key=lambda i: labels.index(factor.labels[i]))
            present = [len(self.space[x]) if x in factor.labels else 1 for x in labels]
            joint = joint + factor.table.transpose(order).reshape(present)
        return Factor(tuple(labels), joint)

    def cheapest(self) -> tuple[Number, Path]:
        """Return the lowest cost in the space, exact, and a path that has it."""
        return self._extreme(np.argmin)

    def dearest(self) -> tuple[Number, Path]:
        """Return the highest cost in the space, exact, and a path that has it."""
        return self._extreme(np.argmax)

    def _extreme(self, pick: Any) -> tuple[Number, Path]:
        path = {label: choices[0] for label, choices in self.space.items()}
        for factor in self.merged():
            best = np.unravel_index(pick(factor.table), factor.table.shape)
            path |= {x: self.space[x][i] for x, i in zip(factor.labels, best, strict=True)}
        return self.price(path), path

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads."""
        return {
            "metric": self.metric,
            "constant": self.constant,
            "factors": [{"labels": f.labels, "table": f.table.tolist()} for f in self.factors],
        }

    @classmethod
    def from_json(cls, content: Any, space: PathSpace) -> CostTable:
        """Read what `to_json` wrote for the same space.

        Raises
        ------
        CostError
            The content is damaged or was made for another space.
        """
        try:
            factors = [
                Factor(tuple(entry["labels"]), np.array(entry["table"]))
                for entry in content["factors"]
            ]
            return cls(content["metric"], space, content["constant"], factors)
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as problem:
            raise CostError(f"not a cost table ({type(problem).__name__}: {problem}).") from None


Costs = Mapping[str, CostTable]
"""Cost tables of one space by the name of their metric."""


def _check_factor(factor: Factor, metric: str, space: PathSpace) -> None:
    unknown = [label for label in factor.labels if label not in space]
    if unknown:
        raise CostError(f"cost table {metric}: label '{unknown[0]}' is not in the space.")
    if len(set(factor.labels)) < len(factor.labels):
        raise CostError(
            f"cost table {metric}: the factor of {', '.join(factor.labels)} names a label twice."
        )
    shape = tuple(len(space[label]) for label in factor.labels)
    if factor.table.shape != shape:
        raise CostError(
            f"cost table {metric}: the factor of {', '.join(factor.labels)} has shape "
            f"{factor.table.shape}; the space's choices need {shape}."
        )
    if factor.table.dtype.kind not in "if" or not np.isfinite(factor.table).all():
        raise CostError(
            f"cost table {metric}: the factor of {', '.join(factor.labels)} has an entry that is "
            "not a finite number."
        )


def _entries(factor: Factor, space: PathSpace) -> Iterable[tuple[Any, tuple[int, ...]]]:
    typed = [[(type(choice), choice) for choice in space[label]] for label in factor.labels]
    positions = itertools.product(*(range(len(choices)) for choices in typed))
    return zip(itertools.product(*typed), positions, strict=True)
