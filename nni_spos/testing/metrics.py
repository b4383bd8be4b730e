"""What every metric promises."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable
from nni_spos.metrics import Metric, Network, Unit
from nni_spos.metrics.building import build_metric
from nni_spos.path import Choice
from nni_spos.priors import UniformPrior
from nni_spos.profilers.base import describe_network
from nni_spos.recipe.recipe import MetricSettings
from nni_spos.spaces import Form, build_space

SPACES: Mapping[str, Mapping[str, Any]] = {
    "shufflenet_small": {"input_size": 16, "in_channels": 1, "num_classes": 10},
    "resnet_small": {},
}
"""Spaces of ours with their arguments; the second one has channel numbers and bit widths."""

NUM_PATHS = 8


class MetricCase:
    """A metric as a recipe names it.

    Parameters
    ----------
    name
        As in the list ``metrics`` of a recipe.
    folder
        Where a user's module is looked for: the recipe's folder.
    spaces
        Names of spaces, as in a recipe, and their arguments.
    keys
        Those that the metric declares itself.
    """

    def __init__(
        self,
        name: str,
        folder: str | os.PathLike[str] | None = None,
        spaces: Mapping[str, Mapping[str, Any]] = SPACES,
        **keys: Any,
    ):
        self.chosen = MetricSettings(name, keys)
        self.folder = None if folder is None else FilePath(folder).absolute()
        self.spaces = spaces

    def make(self) -> Metric:
        """Return a new metric."""
        return build_metric(self.chosen, self.folder)


def a_constraint_can_name_it(case: MetricCase) -> None:
    """Its name can stand in a constraint."""
    limit = Constraint.parse(f"{case.make().name} <= 3")
    assert limit.metric == case.make().name, f"a constraint takes it for {limit.metric}"


def it_says_how_it_is_shown(case: MetricCase) -> None:
    """Its unit can be kept beside its tables, and writes a cost in one line."""
    unit = case.make().unit
    assert Unit.from_json(unit.to_json()) == unit, f"{unit} cannot be kept"
    assert "\n" not in unit.format(1.5), "a cost takes more than a line"


def some_space_has_it(case: MetricCase) -> None:
    """At least one of the spaces has such a cost."""
    assert _tables(case), f"none of the spaces {', '.join(case.spaces)} has it"


def a_table_is_of_its_space(case: MetricCase) -> None:
    """Tables have the metric's name and the labels of the space."""
    for name, table in _tables(case).items():
        assert table.metric == case.make().name, f"the table is one of {table.metric}"
        assert table.space == _network(case, name).space, f"the table is not one of {name}"


def costs_are_numbers(case: MetricCase) -> None:
    """Every path has a finite cost."""
    for table in _tables(case).values():
        costs = [table.cheapest()[0], table.dearest()[0]]
        assert all(map(math.isfinite, costs)), f"costs lie between {costs[0]} and {costs[1]}"


def a_path_costs_what_the_network_built_for_it_does(case: MetricCase) -> None:
    """The table says of a path what the metric says of the network that is built for it."""
    for name, table in _tables(case).items():
        prior = UniformPrior(table.space)
        for path in table.space.decode(prior.draw(NUM_PATHS, np.random.default_rng(0))):
            network = _network(case, name, path)
            found = case.make().table(network).price(path)
            price = table.price(path)
            assert math.isclose(price, found, rel_tol=1e-9, abs_tol=1e-12), (
                f"{path} of {name}: {price} by the table, {found} by its own network"
            )


def it_is_the_same_each_time(case: MetricCase) -> None:
    """It gives the same table again."""
    first, second = _tables(case), _tables(case)
    for name, table in first.items():
        assert table.to_json() == second[name].to_json(), f"{name} has other costs the second time"


def other_randomness_does_not_matter(case: MetricCase) -> None:
    """Nothing random is in it."""
    found = []
    for seed in (0, 1):
        np.random.seed(seed)
        found.append({name: table.to_json() for name, table in _tables(case).items()})
    assert found[0] == found[1], "the costs depend on NumPy's global generator"


def tables_can_be_kept(case: MetricCase) -> None:
    """Tables are written to a file and read again."""
    for table in _tables(case).values():
        kept = CostTable.from_json(table.to_json(), table.space)
        paths = UniformPrior(table.space).draw(NUM_PATHS, np.random.default_rng(0))
        assert np.array_equal(kept.price_many(paths), table.price_many(paths)), "it is another one"


def _tables(case: MetricCase) -> dict[str, CostTable]:
    """Return the tables of the spaces that have such a cost."""
    metric = case.make()
    networks = {name: _network(case, name) for name in case.spaces}
    return {k: metric.table(x) for k, x in networks.items() if metric.applies_to(x)}


def _network(case: MetricCase, name: str, path: Mapping[str, Choice] | None = None) -> Network:
    chosen = None if path is None else tuple(path.items())
    return _describe(name, tuple(case.spaces[name].items()), chosen)


@cache
def _describe(
    name: str, arguments: tuple[tuple[str, Any], ...], path: tuple[tuple[str, Any], ...] | None
) -> Network:
    chosen = None if path is None else dict(path)
    space: Any = build_space(name, dict(arguments), Form.SUBNET, path=chosen)
    whole = None if path is None else _describe(name, arguments, None).space
    return describe_network(space, (space.in_channels, space.input_size, space.input_size), whole)


CHECKS: tuple[Callable[[MetricCase], None], ...] = (
    a_constraint_can_name_it,
    it_says_how_it_is_shown,
    some_space_has_it,
    a_table_is_of_its_space,
    costs_are_numbers,
    a_path_costs_what_the_network_built_for_it_does,
    it_is_the_same_each_time,
    other_randomness_does_not_matter,
    tables_can_be_kept,
)
"""Everything that is promised, as functions of a case."""
