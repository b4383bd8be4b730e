"""The measured latency tables that a recipe names."""

from __future__ import annotations

from nni_spos.cost_table import CostTable
from nni_spos.errors import CostError
from nni_spos.latency.table import load_latency_table
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import Recipe


def load_latencies(
    recipe: Recipe, space: PathSpace, flops: CostTable | None
) -> dict[str, CostTable]:
    """Return the latency tables that a recipe names, by metric.

    Parameters
    ----------
    recipe
        Names the files, if any.
    space
        Labels and choices that the tables must be for.
    flops
        Multiply-adds of the space, to see that its layers are those that were measured.

    Warns
    -----
    LatencyWarning
        A table was measured under other conditions.

    Raises
    ------
    CostError
        A table is missing, damaged or of another space, or two are of the same metric.
    """
    costs: dict[str, CostTable] = {}
    for file in recipe.latency:
        if not file.exists():
            raise CostError(
                f"{file}: no such file, which {recipe.file.name} names as a latency table. Make "
                f"it: nni-spos latency {recipe.file.name} --device cpu --output {file.name}"
            )
        table = load_latency_table(file, space, flops=flops)
        if table.metric in costs:
            raise CostError(
                f"{recipe.file.name}: latency: two tables are of {table.metric}; {file.name} is "
                "the second. Name one for each device."
            )
        costs[table.metric] = table
    return costs
