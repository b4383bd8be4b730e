"""The search that a recipe asks for, and what makes two searches the same one."""

from __future__ import annotations

from typing import Any

from nni_spos.cost_table import Costs
from nni_spos.digests import digest_content
from nni_spos.errors import ConstraintError
from nni_spos.evolution import (
    EvolutionSearch,
    Nsga2Search,
    RandomSearch,
    Search,
    choose_cost_objectives,
)
from nni_spos.identity import Result, describe
from nni_spos.path import PathSpace
from nni_spos.recipe import Recipe, SearchSettings

SEARCHES: dict[str, type[Search]] = {
    "evolution": EvolutionSearch,
    "nsga2": Nsga2Search,
    "random": RandomSearch,
}

COMMON_KEYS = ("constraints", "population_size", "num_generations", "objective", "seed")
BREEDING_KEYS = (*COMMON_KEYS, "num_mutations", "num_crossovers", "mutation_prob")
SEARCH_KEYS = {
    "evolution": (*BREEDING_KEYS, "top_k"),
    "nsga2": (*BREEDING_KEYS, "cost_objectives"),
    "random": COMMON_KEYS,
}
"""Settings that each algorithm's constructor takes."""


def build_search(settings: SearchSettings, space: PathSpace, costs: Costs) -> Search:
    """Make the search of a recipe's section ``search``.

    Raises
    ------
    ConstraintError, InfeasibleError
        The constraints cannot be met, or name an unknown metric.
    SearchError
        The search nsga2 lacks a cost to minimise, or pymoo.
    """
    _check_latencies(settings, costs)
    keys = SEARCH_KEYS[settings.algorithm]
    arguments = {key: getattr(settings, key) for key in keys}
    return SEARCHES[settings.algorithm](space, costs, **arguments)


def _check_latencies(settings: SearchSettings, costs: Costs) -> None:
    """Say how to get a latency table that the search needs. Raises ConstraintError."""
    wanted = {limit.metric: f"constraint '{limit}'" for limit in settings.constraints}
    for metric in _cost_objectives(settings):
        wanted.setdefault(metric, "cost_objectives")
    for metric, where in wanted.items():
        if _is_latency(metric) and metric not in costs:
            device = "cuda" if "cuda" in metric or "gpu" in metric else "cpu"
            raise ConstraintError(
                f"{where}: there is no table of '{metric}'. Measure "
                f"latency_ms({device}) with 'nni-spos latency RECIPE --device {device} --output "
                f"latency_{device}.json', and name the file in the recipe: 'latency: "
                f"[latency_{device}.json]'."
            )


def _cost_objectives(settings: SearchSettings) -> tuple[str, ...]:
    """Return the costs that the search minimises."""
    if "cost_objectives" not in SEARCH_KEYS[settings.algorithm]:
        return ()
    return choose_cost_objectives(settings.cost_objectives, settings.constraints)


def _is_latency(metric: str) -> bool:
    return metric.startswith("latency")


def fingerprint(
    recipe: Recipe, space: PathSpace, costs: Costs, weights: str | None = None
) -> dict[str, Any]:
    """Return, as JSON values, everything that a search's candidates and their scores depend on.

    Beside the parts of `nni_spos.identity` these are the choices of the space, and measured cost
    tables that a constraint or an objective is on: the others follow from the space. Settings
    that the search's algorithm does not have are left out. `weights` is as in
    `nni_spos.identity.describe`.
    """
    cost_objectives = _cost_objectives(recipe.search)
    found = describe(Result.SEARCH, recipe, weights)
    found["search"]["cost_objectives"] = list(cost_objectives)
    unused = set(found["search"]) - {"algorithm", *SEARCH_KEYS[recipe.search.algorithm]}
    for name in unused:
        del found["search"][name]
    deciding = {*cost_objectives, *(limit.metric for limit in recipe.search.constraints)}
    measured = sorted(filter(_is_latency, deciding))
    latencies = {metric: digest_content(costs[metric].to_json()) for metric in measured}
    choices = {"choices": space.to_search_space()}
    return {**choices, **found, **({"latency": latencies} if latencies else {})}
