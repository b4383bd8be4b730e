"""A search in Python, without a recipe: over any space, by any score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nni_spos.cost_table import Costs
from nni_spos.errors import CostError
from nni_spos.evolution import Search
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.search.building import build_search
from nni_spos.search.evaluating import SearchProgress, ask_all, evaluate_all
from nni_spos.search.first_paths import find_first_paths

if TYPE_CHECKING:
    from nni.nas.nn.pytorch import ModelSpace

Score = Callable[[Path], Mapping[str, Any] | float]
"""From a path to its results by name, or to the one that is to be as high as possible."""


def search_paths(
    space: ModelSpace | PathSpace,
    score: Score,
    costs: Costs | None = None,
    *,
    settings: SearchSettings | None = None,
    progress: bool = True,
    **changes: Any,
) -> Search:
    """Search a space to the end, by a score of your own.

    The search is that of a recipe, with the same candidates for the same seed and results, but
    nothing is written to the disk: for a search that goes on after it was cut off, write a recipe
    and call `nni_spos.run_search`.

    Parameters
    ----------
    space
        What to search: a model space, also as a supernet, or its labels and choices.
    score
        Takes a path and returns its results by name, or a number, which is the objective. What a
        path's network raises excludes the path; every other error ends the search. One with an
        attribute ``objective`` says the name of that result, such as
        `nni_spos.LightningScorer`. One with a method ``score_many``, from paths and a function
        that takes the share done to their results, is given a generation at a time.
    costs
        Cost tables of the space, e.g. from `nni_spos.build_costs`. May be left out without
        constraints.
    settings
        The search; by default that of the paper.
    progress
        Whether to show a progress bar on standard error.
    **changes
        Keys of a recipe's section ``search`` that replace those of `settings`:
        ``constraints=["flops <= 330M"]``, ``population_size=20``, ``algorithm="random"``. With
        ``sensitivity=True`` each choice is first tried alone in the path of all first choices,
        which is the network that a space was converted from.

    Returns
    -------
    The finished search: ``best`` is its best candidate, ``top(10)`` are the ten best.

    Raises
    ------
    RecipeError
        An unknown key or a wrong value.
    ConstraintError, InfeasibleError
        The constraints cannot be met, or name an unknown metric.
    CostError
        The costs are those of another space.
    SearchError
        All candidates of the first generation failed, or a result lacks the objective.
    """
    if not isinstance(space, PathSpace):
        space = PathSpace.from_model_space(space)
    for metric, table in (costs or {}).items():
        if table.space != space:
            raise CostError(f"cost table {metric}: was made for another space than the one given.")
    objective = getattr(score, "objective", None)
    if isinstance(objective, str):
        changes.setdefault("objective", objective)
    settings = (settings or SearchSettings()).changed(changes, search_paths.__name__)
    search = build_search(settings, space, dict(costs or {}))
    scorer: Any = score if hasattr(score, "score_many") else _named(score, settings.maximised)
    if settings.sensitivity:
        search.enqueue(find_first_paths(space, dict(costs or {}), settings, scorer, progress))
    with SearchProgress(search, shown=progress, initial=0) as bar:
        while paths := ask_all(search):
            for _ in evaluate_all(search, paths, scorer, bar.show_share):
                bar.advance()
    return search


def _named(score: Score, objective: str) -> Callable[[Path], Mapping[str, Any]]:
    """Let a score that returns a number return it by its name."""

    def scorer(path: Path) -> Mapping[str, Any]:
        found = score(path)
        return found if isinstance(found, Mapping) else {objective: found}

    return scorer
