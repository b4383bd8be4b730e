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

    is_sum = True
    """Whether a path costs the sum of the entries, so that paths can be counted by their cost."""

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

    def __repr__(self) -> str:
        num_paths = self.space.size
        paths = f"{num_paths:,}" if num_paths < 10**6 else f"{float(num_paths):.3g}"
        return f"<CostTable {self.metric}: {len(self.space)} labels, {paths} paths>"

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

    def cheapest(self) -> tuple[Number, Path]:
        """Return the lowest cost in the space, exact, and a path that has it.

        Raises
        ------
        CostError
            Factors hang together so that a joint table would exceed `MAX_JOINT_SIZE` entries.
        """
        return self._extreme(np.add, np.argmin)

    def dearest(self) -> tuple[Number, Path]:
        """Return the highest cost in the space, exact, and a path that has it.

        Raises CostError as `cheapest` does.
        """
        return self._extreme(np.add, np.argmax)

    def _extreme(self, combine: Any, pick: Any) -> tuple[Number, Path]:
        """Return the least or the largest cost, and a path that has it.

        A label is decided at a time, for all choices of those that it shares a factor with. What it
        then costs is a factor of these.
        """
        path = {label: choices[0] for label, choices in self.space.items()}
        factors, decided = list(self.factors), []
        while open_labels := {label for factor in factors for label in factor.labels}:
            label = min(open_labels, key=lambda x: (self._joint_size(factors, x), x))
            touching = [factor for factor in factors if label in factor.labels]
            joint = self._join(combine, touching, label)
            factors = [factor for factor in factors if label not in factor.labels]
            decided.append((label, joint))
            if len(joint.labels) > 1:
                best = pick(joint.table, axis=-1)[..., None]
                table = np.take_along_axis(joint.table, best, axis=-1)[..., 0]
                factors.append(Factor(joint.labels[:-1], table))
        for label, joint in reversed(decided):
            place = tuple(list(self.space[x]).index(path[x]) for x in joint.labels[:-1])
            path[label] = self.space[label][int(pick(joint.table[place]))]
        return self.price(path), path

    def _joint_size(self, factors: list[Factor], label: str) -> int:
        labels = {x for factor in factors if label in factor.labels for x in factor.labels}
        return math.prod(len(self.space[x]) for x in labels)

    def _join(self, combine: Any, factors: list[Factor], last: str) -> Factor:
        """Return one factor for several, whose last axis is that of a label."""
        if self._joint_size(factors, last) > MAX_JOINT_SIZE:
            raise CostError(
                f"cost table {self.metric}: the costs around {last} depend on each other in more "
                f"than {MAX_JOINT_SIZE} combinations."
            )
        around = {x for factor in factors for x in factor.labels} - {last}
        labels = [*(label for label in self.space if label in around), last]
        # Tables of small whole numbers would wrap around.
        kinds = [factor.table for factor in factors]
        joint: Any = None
        for factor in factors:
            order = sorted(range(len(factor.labels)), key=lambda i: labels.index(factor.labels[i]))
            present = [len(self.space[x]) if x in factor.labels else 1 for x in labels]
            table = factor.table.astype(np.result_type(np.int64, *kinds))
            table = table.transpose(order).reshape(present)
            joint = table if joint is None else combine(joint, table)
        shape = [len(self.space[x]) for x in labels]
        return Factor(tuple(labels), np.broadcast_to(joint, shape))

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
            kind = PeakTable if content.get("combine") == PEAK else cls
            return kind(content["metric"], space, content["constant"], factors)
        except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as problem:
            raise CostError(f"not a cost table ({type(problem).__name__}: {problem}).") from None


PEAK = "largest"
"""How the entries of a `PeakTable` are combined, in JSON."""


class PeakTable(CostTable):
    """A cost that is the largest of a constant and of the factors' entries, and not their sum.

    Memory is such a cost: what one operator needs is free for the next. The parameters are those of
    `CostTable`.

    Examples
    --------
    >>> space = PathSpace({"layer_1": ["k3", "k5"], "layer_2": ["k3", "k5"]})
    >>> table = PeakTable("peak_activation_bytes", space, 10, [
    ...     Factor(("layer_1",), np.array([9, 25])), Factor(("layer_2",), np.array([18, 50]))])
    >>> table.price({"layer_1": "k5", "layer_2": "k3"}), table.cheapest()[0]
    (25, 18)
    """

    is_sum = False

    def price(self, path: Mapping[str, Choice]) -> Number:
        """Return the cost of one path. Raises PathError for a path of another space."""
        return self.price_many(self.space.encode([path]))[0].item()

    def price_many(self, indices: Indices) -> npt.NDArray[Any]:
        """Return the costs of paths given as positions, shape (num_paths, num_labels)."""
        indices = np.asarray(indices)
        total = np.full(len(indices), self.constant)
        for columns, factor in zip(self._columns, self.factors, strict=True):
            entries = factor.table[tuple(indices[:, column] for column in columns)]
            total = np.maximum(total, entries)
        return total

    def cheapest(self) -> tuple[Number, Path]:
        """Return the lowest cost in the space, exact, and a path that has it.

        Raises CostError as that of a sum does.
        """
        return self._extreme(np.maximum, np.argmin)

    def dearest(self) -> tuple[Number, Path]:
        """Return the highest cost in the space, exact, and a path that has it."""
        path = {label: choices[0] for label, choices in self.space.items()}
        if self.factors:
            factor = max(self.factors, key=lambda x: x.table.max())
            place = np.unravel_index(factor.table.argmax(), factor.table.shape)
            path |= {x: self.space[x][i] for x, i in zip(factor.labels, place, strict=True)}
        return self.price(path), path

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `CostTable.from_json` reads."""
        return {**super().to_json(), "combine": PEAK}


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
