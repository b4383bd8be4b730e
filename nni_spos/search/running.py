"""The search of a recipe in this process: the same candidates as under NNI, without NNI."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nni_spos.cost_table import Costs
from nni_spos.costs.stored import load_costs
from nni_spos.display.announcement import announce
from nni_spos.errors import CheckpointError, ExperimentError
from nni_spos.evolution import Journal
from nni_spos.files.atomic import previous
from nni_spos.files.digests import digest_weights
from nni_spos.files.locks import exclusive
from nni_spos.path import Path, PathSpace
from nni_spos.process.imports import is_loaded
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.task import find_task
from nni_spos.search.building import build_search, fingerprint
from nni_spos.search.evaluating import ScorePath, SearchProgress, ask_all, evaluate_all
from nni_spos.search.first_paths import find_first_paths, kept_first_paths
from nni_spos.search.predicted import PredictedScorer
from nni_spos.search.results import Results, load_results
from nni_spos.search.run_record import RunRecorder

if TYPE_CHECKING:
    from nni_spos.search.scorer import Scorer


def run_search(
    recipe: Recipe,
    scorer: ScorePath | None = None,
    progress: bool = True,
    cached: bool = True,
    folder: str = "search",
) -> Results:
    """Search to the end, from the beginning or from where an earlier call was cut off.

    Every outcome is on the disk, in ``OUTPUT/FOLDER/search.jsonl``, before the next candidate is
    evaluated, or the next generation by a scorer that takes many at a time. The search can be
    stopped at any moment; the same call then goes on.

    Parameters
    ----------
    recipe
        What to search, and how.
    scorer
        Returns the results of a path, the objective among them; by default the recipe's trained
        supernet, opened when the first path is to be scored. One with a method ``score_many``,
        from paths and a function that takes the share done to their results, is given a
        generation at a time. What a path's network raises excludes the path, see
        `nni_spos.scoring.failures`; all other errors end the search.
    progress
        Whether to show a progress bar on standard error.
    cached
        Whether scores of the supernet are shared with other searches of it.
    folder
        Of the search, in the output folder: one supernet serves many searches.

    Returns
    -------
    Results of all candidates.

    Raises
    ------
    ConstraintError, InfeasibleError
        The constraints cannot be met, or name an unknown metric.
    CheckpointError, DataError
        See `nni_spos.search.scorer.open_scorer`.
    ExperimentError
        Another process is searching in the folder.
    SearchError
        The folder holds a search with other settings, every candidate of the first generation
        failed, or the results lack the objective.
    EvaluatorError
        There is too little memory for a path. The same call then goes on.
    """
    if scorer is None:  # one of a user's own may have other results
        recipe.search.check_objective()
    with contextlib.ExitStack() as stack:

        def open_scorer(recipe: Recipe) -> ScorePath:
            return scorer or _open(recipe, cached, stack)

        return _run(recipe, open_scorer, progress, recipe.files.search_in(folder))


def _run(
    recipe: Recipe, open_scorer: Callable[[Recipe], ScorePath], progress: bool, folder: SearchFolder
) -> Results:
    space, costs = load_costs(recipe)
    task = find_task(recipe.task)
    search = build_search(recipe.search, space, costs)
    # What is wrong is said before anything is written.
    scorer = None if folder.journal.exists() else open_scorer(recipe)
    weights = _weights(recipe, scorer)
    with exclusive(folder.lock, timeout=0, refusal=_is_used(folder)):
        depends_on = fingerprint(recipe, space, costs, weights)
        journal = Journal(folder.journal, depends_on)
        for path, outcome in journal.outcomes:
            search.remember(path, outcome)
        if recipe.search.sensitivity:

            def open_single() -> ScorePath:
                nonlocal scorer
                if recipe.evaluation.racing is None:
                    scorer = scorer or open_scorer(recipe)
                    return scorer
                return open_scorer(_unraced(recipe))

            def find() -> list[Path]:
                return _find_first_paths(recipe, space, costs, open_single(), progress)

            search.enqueue(kept_first_paths(folder.first_paths, depends_on, find))
        paths = ask_all(search)
        if paths:
            scorer = scorer or open_scorer(recipe)
            if _weights(recipe, scorer) != weights:
                raise CheckpointError(f"{recipe.checkpoint}: was replaced meanwhile. Try again.")
            if not journal.outcomes:  # images may have been downloaded only now
                journal.complete(fingerprint(recipe, space, costs, weights))
            record = RunRecorder(folder, recipe, len(journal.outcomes))
            done, figure = len(journal.outcomes), task.figure(search.objective)
            with SearchProgress(search, shown=progress, initial=done, figure=figure) as bar:
                while paths:
                    with record.measuring():
                        for candidate in evaluate_all(search, paths, scorer, bar.show_share):
                            journal.append(candidate)
                            bar.advance()
                    paths = ask_all(search)
    return dataclasses.replace(load_results(folder.path), own_task=task)


def prepare_first_paths(recipe: Recipe, folder: SearchFolder, depends_on: Any) -> None:
    """Find the first paths of a search that another process does, and leave them in its folder.

    Parameters
    ----------
    recipe
        Whose search has ``sensitivity``.
    folder
        Of the search.
    depends_on
        What the paths follow from, see `kept_first_paths`.

    Raises
    ------
    SposError
        See `run_search`.
    """
    space, costs = load_costs(recipe)
    with contextlib.ExitStack() as stack:

        def find() -> list[Path]:
            scorer = _open(_unraced(recipe), True, stack)
            return _find_first_paths(recipe, space, costs, scorer, progress=False)

        kept_first_paths(folder.first_paths, depends_on, find)


def _find_first_paths(
    recipe: Recipe, space: PathSpace, costs: Costs, scorer: ScorePath, progress: bool
) -> list[Path]:
    figure = find_task(recipe.task).figure(recipe.search.maximised)
    return find_first_paths(space, costs, recipe.search, scorer, progress, figure)


def _unraced(recipe: Recipe) -> Recipe:
    """Return a recipe without races, which paths that break the limits would win."""
    return dataclasses.replace(
        recipe, evaluation=dataclasses.replace(recipe.evaluation, racing=None)
    )


def _weights(recipe: Recipe, scorer: ScorePath | None) -> str | None:
    """Return the digest of the weights that a scorer has read, else of those that are there."""
    return getattr(scorer, "weights", None) or digest_weights(recipe.checkpoint)


def set_aside(recipe: Recipe, folder: str = "search") -> None:
    """Let the next search in a folder begin anew; the journal that is there stays beside it.

    Raises
    ------
    ExperimentError
        Another process is searching in the folder.
    """
    search = recipe.files.search_in(folder)
    if not search.journal.exists():
        return
    with exclusive(search.lock, timeout=0, refusal=_is_used(search)):
        os.replace(search.journal, previous(search.journal))
        search.record.unlink(missing_ok=True)
        search.first_paths.unlink(missing_ok=True)


def _is_used(folder: SearchFolder) -> ExperimentError:
    return ExperimentError(
        f"{folder.path}: another process is searching here. Wait for its end, or give the recipe "
        "another output folder."
    )


def _open(recipe: Recipe, cached: bool, stack: contextlib.ExitStack) -> ScorePath:
    """Open what scores paths for a recipe."""
    predicted = _open_predicted(recipe, cached, stack)
    return predicted or stack.enter_context(contextlib.closing(_open_scorer(recipe, cached)))


def _open_predicted(
    recipe: Recipe, cached: bool, stack: contextlib.ExitStack
) -> PredictedScorer | None:
    """Open what predicts the objective, if it is to be predicted."""
    if not recipe.search.predicts:
        return None
    space, costs = load_costs(recipe)
    if not recipe.evaluation.supernet_input:
        return PredictedScorer(recipe, space, costs)
    supernet = stack.enter_context(contextlib.closing(_open_scorer(recipe, cached)))
    return PredictedScorer(recipe, space, costs, supernet.score_many)


def _open_scorer(recipe: Recipe, cached: bool) -> Scorer:
    # PyTorch is not imported to refuse a search, or to show the results of a finished one.
    if not is_loaded():
        announce("loading PyTorch")
    from nni_spos.search.device_pool import open_device_scorer

    return open_device_scorer(recipe, cached)
