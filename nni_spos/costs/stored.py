"""Cost tables of a recipe's space, kept in a file so that the tuner need not import PyTorch.

NNI gives a tuner ten seconds to connect. The tables are therefore built in a process of their
own, once, and read from the recipe's output folder after that.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from nni_spos.cost_table import Costs, CostTable
from nni_spos.display.announcement import announce
from nni_spos.errors import CostError, SposError, error_from_data
from nni_spos.files.atomic import read_json, write_json
from nni_spos.files.digests import digest_content
from nni_spos.files.locks import exclusive
from nni_spos.latency.recipe_tables import load_latencies
from nni_spos.metrics.units import Unit, remember_unit, unit_of
from nni_spos.path import PathSpace
from nni_spos.process.child import python_command
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe


def build_apart(recipe: Recipe) -> None:
    """Build the tables in a process of their own. Raises SposError, see `load_costs`."""
    announce("building the cost tables")
    built = subprocess.run(
        python_command("nni_spos.costs.build", [str(recipe.file)]),
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise _error(built.stdout) or CostError(
            f"{recipe.file}: the costs cannot be built: {_last_line(built.stderr)}"
        )


def load_costs(
    recipe: Recipe, build: Callable[[Recipe], object] = build_apart
) -> tuple[PathSpace, Costs]:
    """Return the space of a recipe and its cost tables, built first if they are not on disk.

    The recipe's latency tables are among them; those are measured by ``nni-spos latency`` only.

    Parameters
    ----------
    recipe
        Names the space and the data.
    build
        Writes the tables that are not on disk with `save_costs`.

    Warns
    -----
    LatencyWarning
        A latency table was measured under other conditions.

    Raises
    ------
    SposError
        The tables cannot be built; the error is that of the building process.
    CostError
        A latency table is missing, damaged or of another space, or two are of the same metric.
    """
    file = recipe.files.costs
    if not are_built(recipe):
        # Trials that start together on a machine without the tables build them once.
        refusal = CostError(f"{file}: is being made by another process.")
        with exclusive(recipe.files.costs_lock, timeout=-1, refusal=refusal):
            if not are_built(recipe):
                build(recipe)
    content = read_json(file, CostError)
    try:
        if content["digest"] != _digest(content):
            raise ValueError("its digest is another one")
        space = PathSpace.from_search_space(content["search_space"])
        tables = [CostTable.from_json(table, space) for table in content["tables"]]
        units = {table.metric: Unit.from_json(content["units"][table.metric]) for table in tables}
    except (KeyError, TypeError, ValueError, RecursionError, SposError) as problem:
        raise CostError(f"{file}: is damaged ({problem}). Delete it; it is made anew.") from None
    for metric, unit in units.items():
        remember_unit(metric, unit)
    costs = {table.metric: table for table in tables}
    return space, costs | load_latencies(recipe, space, costs.get("flops"))


def are_built(recipe: Recipe) -> bool:
    """Whether the analytic tables are on disk, so that no code of a user's space is run."""
    file = recipe.files.costs
    if not file.exists():
        return False
    content = read_json(file, CostError)
    return isinstance(content, dict) and content.get("made_for") == describe(Result.COSTS, recipe)


def _error(output: str) -> SposError | None:
    """Return the error that the process wrote; None if it ended before it could."""
    try:
        return error_from_data(json.loads(output))
    except ValueError:
        return None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def save_costs(recipe: Recipe, space: PathSpace, costs: Costs) -> None:
    """Write the tables where `load_costs` finds them."""
    content = {
        "made_for": describe(Result.COSTS, recipe),
        "search_space": space.to_search_space(),
        "tables": [table.to_json() for table in costs.values()],
        "units": {metric: unit_of(metric).to_json() for metric in costs},
    }
    write_json(recipe.files.costs, {**content, "digest": _digest(content)})


def _digest(content: Mapping[str, Any]) -> str:
    """Return what tells the tables from damaged ones, which would price paths all the same."""
    return digest_content([content["search_space"], content["tables"], content["units"]])
