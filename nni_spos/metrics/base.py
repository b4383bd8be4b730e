"""What every metric has in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nni_spos.cost_table import CostTable, Factor, Number
from nni_spos.errors import CostError
from nni_spos.metrics.network import Condition, Layer, Network, ParameterCount
from nni_spos.metrics.units import Unit
from nni_spos.path import PathSpace
from nni_spos.values import as_number, is_finite, shown

NAME = re.compile("[a-z][a-z0-9_]*")
"""What a constraint can name."""


class Metric(ABC):
    """A cost of a path that is a sum over its layers or parameters.

    Derive from `LayerMetric` or `ParameterMetric` where one formula does. A metric may have keys in
    a recipe: then it is a frozen dataclass whose fields `nni_spos.recipe.settings.setting` makes.

    Attributes
    ----------
    name : str
        As constraints and results have it: small letters, digits and ``_``.
    unit : Unit
        How its costs are shown; by default as plain numbers under its name.

    Examples
    --------
    A module ``my_metric.py`` beside a recipe that has ``metrics: [my_metric:Energy]`` and, for
    instance, ``search: {constraints: ["energy_nj <= 900"]}``:

    >>> from dataclasses import dataclass
    >>> from nni_spos.recipe.settings import real, setting
    >>> @dataclass(frozen=True)
    ... class Energy(LayerMetric):
    ...     name = "energy_nj"
    ...     unit = Unit("energy (nJ)")
    ...     pj_per_mac: float = setting(real(0), 4.6)
    ...
    ...     def of_layer(self, layer):
    ...         return layer.macs * self.pj_per_mac / 1000
    """

    name: ClassVar[str]
    unit: ClassVar[Unit] = Unit()
    is_optional: ClassVar[bool] = False
    """Whether a space has it only if its recipe lists it, though it is one of ours."""

    @abstractmethod
    def costs(self, network: Network) -> Iterable[tuple[Condition, Number]]:
        """Yield costs, each with the choices that a path must make to have it."""

    def applies_to(self, network: Network) -> bool:
        """Whether a space has this cost at all."""
        return True

    def table(self, network: Network) -> CostTable:
        """Return the cost of every path.

        Raises
        ------
        CostError
            The metric's name cannot stand in a constraint, a cost is not a finite number, or it
            depends on choices that are not its layer's own.
        """
        if not isinstance(name := getattr(self, "name", None), str) or not NAME.fullmatch(name):
            raise CostError(
                f"metric {type(self).__name__}: its attribute 'name' must be small letters, digits "
                f"and '_', as constraints have it, got {shown(name)}."
            )
        return tabulate(self.name, network.space, self.costs(network))


class LayerMetric(Metric):
    """A sum over the layers of a path."""

    reads_shapes = True
    """Whether `of_layer` looks at shapes, or at multiply-adds and bits alone."""

    @abstractmethod
    def of_layer(self, layer: Layer) -> Number:
        """Return the cost of one call of a layer, for one image."""

    def costs(self, network: Network) -> Iterator[tuple[Condition, Number]]:
        for layer in network.layers:
            cost = self.of_layer(layer)
            self.check_own(layer, cost)
            yield layer.condition, cost

    def check_own(self, layer: Layer, cost: Number) -> None:
        """Refuse a cost that choices elsewhere decide. Raises CostError."""
        if cost and (layer.varies if self.reads_shapes else layer.macs_vary):
            where = f" ({layer.places})" if layer.places else ""
            raise CostError(
                f"{layer.title}: its {self.unit.title or self.name}{where} depend on choices "
                "elsewhere. Make the numbers that it depends on choices of its own, with the "
                "classes of nni_spos.mutables."
            )


class ParameterMetric(Metric):
    """A sum over the parameters of a path."""

    @abstractmethod
    def of_parameter(self, parameter: ParameterCount) -> Number:
        """Return the cost of one parameter."""

    def costs(self, network: Network) -> Iterator[tuple[Condition, Number]]:
        for parameter in network.parameters:
            yield parameter.condition, self.of_parameter(parameter)


def tabulate(metric: str, space: PathSpace, costs: Iterable[tuple[Condition, Number]]) -> CostTable:
    """Sum costs, each with the choices it depends on, into a table.

    Costs under the same labels form one factor; a path pays an entry when it makes all of the
    entry's choices. Whole numbers stay exact; a factor with another number has floats.

    Raises
    ------
    CostError
        A cost is not a finite number.
    """
    constant: Number = 0
    sums: dict[tuple[str, ...], dict[tuple[int, ...], Number]] = defaultdict(dict)
    positions = {label: {c: i for i, c in enumerate(choices)} for label, choices in space.items()}
    for condition, given in costs:
        cost = as_number(given)
        if not is_finite(cost):
            raise CostError(f"metric {metric}: a cost must be a finite number, got {shown(given)}.")
        if not condition:
            constant += cost
            continue
        ordered = sorted(condition, key=lambda pair: space.labels.index(pair[0]))
        entries = sums[tuple(label for label, _ in ordered)]
        place = tuple(positions[label][choice] for label, choice in ordered)
        entries[place] = entries.get(place, 0) + cost
    factors = []
    for labels, entries in sums.items():
        is_whole = all(type(cost) is int for cost in entries.values())
        table: npt.NDArray[Any] = np.zeros(
            [len(space[label]) for label in labels], np.int64 if is_whole else np.float64
        )
        for place, cost in entries.items():
            table[place] = cost
        factors.append(Factor(labels, table))
    return CostTable(metric, space, constant, factors)
