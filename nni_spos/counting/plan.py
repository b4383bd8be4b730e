"""In which order the labels of a path are decided, and what each decision costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.cost_table import CostTable, Number
from nni_spos.errors import CostError
from nni_spos.path import PathSpace

Options = Sequence[Sequence[int]]
"""For every label of a space the positions of the choices that a path may make."""

MAX_STATES = 4096
"""Most combinations of choices that open factors may have to remember."""


@dataclass(frozen=True)
class Stage:
    """The decision on one label.

    Parameters
    ----------
    column
        The label's column in paths given as positions.
    positions
        What may be chosen, shape (num_options,).
    costs
        For each cost table what becomes known to be paid, shape (num_states, num_options); the
        lowest entry is 0.
    following
        The state afterwards, shape (num_states, num_options).
    """

    column: int
    positions: npt.NDArray[np.int64]
    costs: tuple[npt.NDArray[Any], ...]
    following: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _OpenFactor:
    """A factor of the table of a number, over the columns that have more than one option."""

    number: int
    columns: tuple[int, ...]
    table: npt.NDArray[Any]


def all_options(space: PathSpace) -> Options:
    """Return the options that allow every path."""
    return [range(n) for n in space.num_choices]


def plan(tables: Sequence[CostTable], options: Options) -> tuple[list[Stage], list[Number]]:
    """Arrange the labels that have more than one option.

    Labels are ordered so that few choices have to be remembered; those without a cost come last.

    Returns
    -------
    The stages, and for each table the cost that is left when every stage pays its lowest entry.

    Raises
    ------
    CostError
        The factors hang together so much that more than `MAX_STATES` states would be needed, or a
        cost is no sum.
    """
    if wrong := [table.metric for table in tables if not table.is_sum]:
        raise CostError(
            f"{wrong[0]} is a maximum over the operators of a path, and not a sum, so that paths "
            "cannot be counted by it. Use prior_method: rejection."
        )
    sizes = [len(positions) for positions in options]
    parts, bases = _parts(tables, options)
    order = _order(sizes, {frozenset(part.columns) for part in parts}, tables)
    stages: list[Stage] = []
    known: list[int] = []
    done: set[int] = set()
    for column in order:
        done.add(column)
        current = [*known, column]
        closing = [p for p in parts if column in p.columns and done.issuperset(p.columns)]
        parts = [p for p in parts if not any(p is other for other in closing)]
        known = [x for x in current if any(x in part.columns for part in parts)]
        shape = [sizes[x] for x in current]
        costs = []
        for number in range(len(tables)):
            cost = _sum(shape, current, (p for p in closing if p.number == number))
            bases[number] += cost.min().item()
            costs.append((cost - cost.min()).reshape(-1, shape[-1]))
        following = np.zeros(shape, dtype=np.int64)
        for axis, places in zip(current, np.indices(shape, sparse=True), strict=True):
            if axis in known:
                following = following * sizes[axis] + places
        positions = np.array(options[column], dtype=np.int64)
        stages.append(Stage(column, positions, tuple(costs), following.reshape(-1, shape[-1])))
    return stages, bases


def _parts(tables: Sequence[CostTable], options: Options) -> tuple[list[_OpenFactor], list[Number]]:
    """Return what is left of the factors under the options, and the costs left constant."""
    parts, bases = [], [table.constant for table in tables]
    for number, table in enumerate(tables):
        columns = {label: column for column, label in enumerate(table.space)}
        for factor in table.factors:
            all_columns = [columns[label] for label in factor.labels]
            costs = factor.table[np.ix_(*(list(options[x]) for x in all_columns))]
            varying = tuple(x for x in all_columns if len(options[x]) > 1)
            costs = costs.reshape([len(options[x]) for x in varying])
            if varying:
                parts.append(_OpenFactor(number, varying, costs))
            else:
                bases[number] += costs.item()
    return parts, bases


def _sum(
    shape: Sequence[int], columns: list[int], parts: Iterable[_OpenFactor]
) -> npt.NDArray[Any]:
    """Add tables over some of the columns to one over all of them."""
    total: npt.NDArray[Any] = np.zeros(shape, dtype=np.int64)
    for part in parts:
        order = sorted(range(len(part.columns)), key=lambda i: columns.index(part.columns[i]))
        axes = [n if x in part.columns else 1 for x, n in zip(columns, shape, strict=True)]
        total = total + part.table.transpose(order).reshape(axes)
    return total


def _order(
    sizes: Sequence[int], groups: Iterable[frozenset[int]], tables: Sequence[CostTable]
) -> list[int]:
    """Order columns greedily, each time the one that leaves the fewest states."""
    groups = sorted(groups, key=sorted)
    touching = {x: [g for g in groups if x in g] for x, size in enumerate(sizes) if size > 1}
    pending = {group: len(group) for group in groups}
    waiting = [x for x in touching if touching[x]]
    order: list[int] = []
    known: list[int] = []

    def still_known(column: int) -> list[int]:
        return [
            x
            for x in [*known, column]
            if any(pending[group] > (column in group) for group in touching[x])
        ]

    def num_states(column: int) -> int:
        return math.prod(sizes[x] for x in still_known(column))

    while waiting:
        column = min(waiting, key=num_states)
        if num_states(column) > MAX_STATES:
            raise CostError(
                f"the costs of {' and '.join(table.metric for table in tables)} depend on more "
                f"than {MAX_STATES} combinations of choices at once, too many to count paths."
            )
        known = still_known(column)
        for group in touching[column]:
            pending[group] -= 1
        waiting.remove(column)
        order.append(column)
    return order + [x for x in touching if not touching[x]]
