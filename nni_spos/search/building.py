"""The search that a recipe asks for, and what makes two searches the same one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from nni_spos.cost_table import Costs
from nni_spos.errors import ConstraintError
from nni_spos.evolution import Search
from nni_spos.files.digests import digest_content
from nni_spos.metrics.units import is_latency
from nni_spos.path import PathSpace
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.registries import METRICS, SEARCHES
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.search.predicted import digest_accuracies
from nni_spos.values import DIGEST

COMMON_KEYS = ("constraints", "population_size", "num_generations", "seed")
"""Settings that the constructor of every search takes, beside the objective."""


def build_search(settings: SearchSettings, space: PathSpace, costs: Costs) -> Search:
    """Make the search of a recipe's section ``search``.

    Parameters
    ----------
    settings
        That section.
    space
        Labels and their choices.
    costs
        Cost tables by metric.

    Raises
    ------
    RecipeError
        There is no such search, it has not such a key, or its code fails.
    ConstraintError, InfeasibleError
        The constraints cannot be met, or name an unknown metric.
    SearchError
        The search nsga2 lacks a cost to minimise, or pymoo.
    """
    search = SEARCHES.find(settings.algorithm, settings.folder)
    own = settings.own()
    _check_latencies(settings, cost_objectives(own), costs)
    arguments = {key: getattr(settings, key) for key in COMMON_KEYS}
    arguments["objective"] = settings.maximised
    arguments |= {x.name: getattr(own, x.name) for x in dataclasses.fields(own)}
    with SEARCHES.explained(settings.algorithm, settings.folder):
        return search(space, costs, **arguments)


def cost_objectives(own: Any) -> tuple[str, ...]:
    """Return the costs that a search minimises, by its ``Settings``; most minimise none."""
    return tuple(getattr(own, "cost_objectives", ()))


def _check_latencies(settings: SearchSettings, minimised: Sequence[str], costs: Costs) -> None:
    """Say how to get a latency table that the search needs. Raises ConstraintError."""
    wanted = {limit.metric: f"constraint '{limit}'" for limit in settings.constraints}
    for metric in minimised:
        wanted.setdefault(metric, "cost_objectives")
    for metric, where in wanted.items():
        if is_latency(metric) and metric not in costs:
            device = "cuda" if "cuda" in metric or "gpu" in metric else "cpu"
            raise ConstraintError(
                f"{where}: there is no table of '{metric}'. Measure "
                f"latency_ms({device}) with 'nni-spos latency RECIPE --device {device} --output "
                f"latency_{device}.json', and name the file in the recipe: 'latency: "
                f"[latency_{device}.json]'."
            )


def fingerprint(
    recipe: Recipe, space: PathSpace, costs: Costs, weights: str | None = None
) -> dict[str, Any]:
    """Return, as JSON values, everything that a search's candidates and their scores depend on.

    Beside the parts of `nni_spos.recipe.identity` these are the choices of the space, and the cost
    tables that decide and do not follow from the space by our own formulas: those that a constraint
    or an objective is on, for a search that is not ours all of them; and the trainings that scores
    are of, or are predicted from. `weights` is as in
    `nni_spos.recipe.identity.describe`.
    """
    found = describe(Result.SEARCH, recipe, weights)
    settings = recipe.search
    deciding = {
        *cost_objectives(settings.own()),
        *(limit.metric for limit in settings.constraints),
    }
    if settings.algorithm not in SEARCHES.ours:
        deciding.update(costs)
    others = sorted(x for x in deciding & costs.keys() if x not in METRICS.ours)
    if settings.predicts or recipe.evaluation.trains_alone:
        found = {**found, **describe(Result.STANDALONE, recipe)}
    if settings.predicts:
        found["trained paths"] = {DIGEST: digest_accuracies(recipe, space)}
    tables = {metric: digest_content(costs[metric].to_json()) for metric in others}
    choices = {"choices": space.to_search_space()}
    return {**choices, **found, **({"latency": tables} if tables else {})}
