"""Cost tables of a recipe's space, kept in a file so that the tuner need not import PyTorch.

NNI gives a tuner ten seconds to connect. The tables are therefore built in a process of their
own, once, and read from the recipe's output folder after that.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from nni_spos.child import python_command
from nni_spos.cost_table import Costs, CostTable
from nni_spos.digests import digest_content
from nni_spos.errors import CostError, SposError
from nni_spos.files import read_json, write_json
from nni_spos.identity import Result, describe
from nni_spos.locks import exclusive
from nni_spos.path import PathSpace
from nni_spos.recipe import Recipe
from nni_spos.recipe_latency import load_latencies


def load_costs(recipe: Recipe) -> tuple[PathSpace, Costs]:
    """Return the space of a recipe and its cost tables, built first if they are not on disk.

    The recipe's latency tables are among them; those are measured by ``nni-spos latency`` only.

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
    file = recipe.output / "costs.json"
    if not are_built(recipe):
        # Trials that start together on a machine without the tables build them once.
        refusal = CostError(f"{file}: is being made by another process.")
        with exclusive(recipe.output / "costs.lock", timeout=-1, refusal=refusal):
            if not are_built(recipe):
                _build(recipe)
    content = read_json(file, CostError)
    try:
        if content["digest"] != _digest(content):
            raise ValueError("its digest is another one")
        space = PathSpace.from_search_space(content["search_space"])
        tables = [CostTable.from_json(table, space) for table in content["tables"]]
    except (KeyError, TypeError, ValueError, RecursionError, SposError) as problem:
        raise CostError(f"{file}: is damaged ({problem}). Delete it; it is made anew.") from None
    costs = {table.metric: table for table in tables}
    return space, costs | load_latencies(recipe, space, costs.get("flops"))


def are_built(recipe: Recipe) -> bool:
    """Whether the analytic tables are on disk, so that no code of a user's space is run."""
    file = recipe.output / "costs.json"
    if not file.exists():
        return False
    content = read_json(file, CostError)
    return isinstance(content, dict) and content.get("made_for") == describe(Result.COSTS, recipe)


def _build(recipe: Recipe) -> None:
    built = subprocess.run(
        python_command("nni_spos.cli", ["costs", str(recipe.file)]),
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        lines = built.stderr.strip().splitlines() or ["no message"]
        raise _reported(lines[-1])


def _reported(line: str) -> SposError:
    """Return the error that the command line printed, or one of ours with the whole line."""
    kind, _, text = line.partition(": ")
    known = {error.__name__: error for error in SposError.__subclasses__()}
    return known[kind](text) if kind in known else CostError(line)


def save_costs(recipe: Recipe, space: PathSpace, costs: Costs) -> None:
    """Write the tables where `load_costs` finds them."""
    content = {
        "made_for": describe(Result.COSTS, recipe),
        "search_space": space.to_search_space(),
        "tables": [table.to_json() for table in costs.values()],
    }
    write_json(recipe.output / "costs.json", {**content, "digest": _digest(content)})


def _digest(content: Mapping[str, Any]) -> str:
    """Return what tells the tables from damaged ones, which would price paths all the same."""
    return digest_content([content["search_space"], content["tables"]])
