"""The search that a recipe asks for, and what makes two searches the same one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from nni_spos.cost_table import Costs
from nni_spos.errors import ConstraintError
from nni_spos.evolution import EvolutionSearch, RandomSearch, Search
from nni_spos.path import PathSpace
from nni_spos.recipe import Recipe, SearchSettings

SEARCHES: dict[str, type[Search]] = {"evolution": EvolutionSearch, "random": RandomSearch}

COMMON_KEYS = ("constraints", "population_size", "num_generations", "objective", "seed")
BREEDING_KEYS = ("top_k", "num_mutations", "num_crossovers", "mutation_prob")
SEARCH_KEYS = {"evolution": (*COMMON_KEYS, *BREEDING_KEYS), "random": COMMON_KEYS}
"""Settings that each algorithm's constructor takes."""


def build_search(settings: SearchSettings, space: PathSpace, costs: Costs) -> Search:
    """Make the search of a recipe's section ``search``.

    Raises
    ------
    ConstraintError, InfeasibleError
        The constraints cannot be met, or name an unknown metric.
    """
    _check_latencies(settings, costs)
    keys = SEARCH_KEYS[settings.algorithm]
    arguments = {key: getattr(settings, key) for key in keys}
    return SEARCHES[settings.algorithm](space, costs, **arguments)


def _check_latencies(settings: SearchSettings, costs: Costs) -> None:
    """Say how to get a latency table that a constraint needs. Raises ConstraintError."""
    for limit in settings.constraints:
        if _is_latency(limit.metric) and limit.metric not in costs:
            device = "cuda" if "cuda" in limit.metric or "gpu" in limit.metric else "cpu"
            raise ConstraintError(
                f"constraint '{limit}': there is no table of '{limit.metric}'. Measure "
                f"latency_ms({device}) with 'nni-spos latency RECIPE --device {device} --output "
                f"latency_{device}.json', and name the file in the recipe: 'latency: "
                f"[latency_{device}.json]'."
            )


def _is_latency(metric: str) -> bool:
    return metric.startswith("latency")


def fingerprint(recipe: Recipe, space: PathSpace, costs: Costs) -> dict[str, Any]:
    """Return, as JSON values, everything that a search's candidates and their scores depend on.

    Folders are left out, apart from the name of the output folder, so that a finished search can
    be moved. Of the cost tables, only measured ones that a constraint is on count: the others
    follow from the space.
    """
    search = dataclasses.asdict(recipe.search)
    search["constraints"] = [str(limit) for limit in recipe.search.constraints]
    unused = set(search) - {"algorithm", *SEARCH_KEYS[recipe.search.algorithm]}
    data = dataclasses.asdict(recipe.data)
    place = {"root", "download", "workers"}
    limited = {limit.metric for limit in recipe.search.constraints if _is_latency(limit.metric)}
    latencies = {metric: _digest(costs[metric].to_json()) for metric in sorted(limited)}
    settings = {
        "space": space.to_search_space(),
        "search": {key: value for key, value in search.items() if key not in unused},
        "evaluation": recipe.evaluation.deciding(),
        "data": {key: value for key, value in data.items() if key not in place},
        "supernet": recipe.supernet.deciding(),
        "checkpoint": f"{recipe.output.name}/{recipe.checkpoint.name}",
    }
    # Only if there is one: searches without keep the settings that they were recorded with.
    return {**settings, "latency": latencies} if latencies else settings


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
