"""What each choice unit of a path contributes to its costs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nni_spos.cost_table import Costs, CostTable
from nni_spos.path import Path, PathSpace

RULE = (
    "A cost that depends on several choices counts for the last of them in the order of the "
    "network: a layer between two choices stands with the one that it leads to."
)
"""How `cost_per_label` divides costs, for readers of a report."""


@dataclass(frozen=True)
class ReportedUnit:
    """Choices that stand in the same place of the network, e.g. channels and bits of one block.

    Parameters
    ----------
    name
        Number of the place, or the label of its only choice.
    choices
        Label to choice, in the order of the space.
    places
        Position of each choice among its label's choices, and their number.
    costs
        Metric to the part of the path's cost that the unit has.
    """

    name: str
    choices: Path
    places: Mapping[str, tuple[int, int]]
    costs: Mapping[str, float]


def cost_per_label(table: CostTable, path: Path) -> dict[str, float]:
    """Divide the cost of a path among its labels; with the table's constant they sum to it.

    A factor of several labels goes to the last of them in the space's order, see `RULE`.

    Examples
    --------
    >>> import numpy as np
    >>> from nni_spos.cost_table import Factor
    >>> space = PathSpace({"a": [1, 2], "b": [1, 2]})
    >>> table = CostTable("flops", space, 5, [
    ...     Factor(("a",), np.array([1, 2])), Factor(("b", "a"), np.array([[10, 20], [30, 40]]))])
    >>> cost_per_label(table, {"a": 2, "b": 1})
    {'a': 2, 'b': 20}
    """
    space = table.space
    key = dict(zip(space, space.key(path), strict=True))
    order = {label: number for number, label in enumerate(space)}
    shares: dict[str, float] = dict.fromkeys(space, 0)
    for factor in table.factors:
        last = max(factor.labels, key=order.__getitem__)
        shares[last] += factor.table[tuple(key[label] for label in factor.labels)].item()
    return shares


def group_labels(space: PathSpace) -> dict[str, list[str]]:
    """Group neighbouring labels that end in the same number, such as channels_3 and bits_3.

    >>> group_labels(PathSpace({"width": [1], "layer_1": [1], "bits_1": [1], "layer_2": [1]}))
    {'width': ['width'], '1': ['layer_1', 'bits_1'], 'layer_2': ['layer_2']}
    """
    runs: list[tuple[str, list[str]]] = []
    for label in space:
        match = re.fullmatch(r".*_(\d+)", label)
        number = match[1] if match else ""
        if number and runs and runs[-1][0] == number:
            runs[-1][1].append(label)
        else:
            runs.append((number, [label]))
    return {number if len(labels) > 1 else labels[0]: labels for number, labels in _apart(runs)}


def divide(path: Path, space: PathSpace, costs: Costs) -> list[ReportedUnit]:
    """Return the units of a path with their costs, in the order of the network."""
    shares = {metric: cost_per_label(table, path) for metric, table in costs.items()}
    key = dict(zip(space, space.key(path), strict=True))
    return [
        ReportedUnit(
            name=name,
            choices={label: path[label] for label in labels},
            places={label: (key[label], len(space[label])) for label in labels},
            costs={metric: sum(x[label] for label in labels) for metric, x in shares.items()},
        )
        for name, labels in group_labels(space).items()
    ]


def _apart(runs: list[tuple[str, list[str]]]) -> list[tuple[str, list[str]]]:
    """Give runs that share a number, but are no neighbours, a name of their own each."""
    numbers = [number for number, labels in runs if len(labels) > 1]
    return [
        (number if numbers.count(number) == 1 else " + ".join(labels), labels)
        for number, labels in runs
    ]
