"""The search of a recipe in this process: the same candidates as under NNI, without NNI."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.digests import digest_weights
from nni_spos.errors import NOT_FINITE, CheckpointError, EvaluatorError, ExperimentError
from nni_spos.evolution import Candidate, Journal, Search, Signal
from nni_spos.experiment.costs import load_costs
from nni_spos.experiment.results import JOURNAL_NAME, Results, load_results
from nni_spos.experiment.run_record import RECORD_NAME, RunRecorder
from nni_spos.experiment.searches import build_search, fingerprint
from nni_spos.files import previous
from nni_spos.locks import exclusive
from nni_spos.path import Path
from nni_spos.progress import interval, open_bar
from nni_spos.recipe import Recipe
from nni_spos.trouble import explain, is_of_the_path, is_out_of_memory, named
from nni_spos.values import as_number, not_finite

if TYPE_CHECKING:
    from nni_spos.experiment.scoring import Scorer as ClosableScorer

Scorer = Callable[[Path], Mapping[str, Any]]
"""From a path to its results by name, e.g. `nni_spos.experiment.scoring.PathScorer`."""

FOLDER = "search"
"""Folder of the journal, in the recipe's output folder, unless another is asked for."""


def run_search(
    recipe: Recipe,
    scorer: Scorer | None = None,
    progress: bool = True,
    cached: bool = True,
    folder: str = FOLDER,
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
        `nni_spos.trouble`; all other errors end the search.
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
        See `nni_spos.experiment.scoring.open_scorer`.
    ExperimentError
        Another process is searching in the folder.
    SearchError
        The folder holds a search with other settings, every candidate of the first generation
        failed, or the results lack the objective.
    EvaluatorError
        There is too little memory for a path. The same call then goes on.
    """
    with contextlib.ExitStack() as stack:

        def open_scorer() -> Scorer:
            return scorer or stack.enter_context(contextlib.closing(_open_scorer(recipe, cached)))

        return _run(recipe, open_scorer, progress, recipe.output / folder)


def _run(
    recipe: Recipe, open_scorer: Callable[[], Scorer], progress: bool, folder: FilePath
) -> Results:
    space, costs = load_costs(recipe)
    search = build_search(recipe.search, space, costs)
    # What is wrong is said before anything is written.
    scorer = None if (folder / JOURNAL_NAME).exists() else open_scorer()
    weights = _weights(recipe, scorer)
    with exclusive(folder / ".lock", timeout=0, refusal=_is_used(folder)):
        journal = Journal(folder / JOURNAL_NAME, fingerprint(recipe, space, costs, weights))
        for path, outcome in journal.outcomes:
            search.remember(path, outcome)
        paths = ask_all(search)
        if paths:
            scorer = scorer or open_scorer()
            if _weights(recipe, scorer) != weights:
                raise CheckpointError(f"{recipe.checkpoint}: was replaced meanwhile. Try again.")
            if not journal.outcomes:  # images may have been downloaded only now
                journal.complete(fingerprint(recipe, space, costs, weights))
            record = RunRecorder(folder, recipe, len(journal.outcomes))
            with _Progress(search, shown=progress, initial=len(journal.outcomes)) as bar:
                while paths:
                    with record.measuring():
                        for candidate in _evaluate_all(search, paths, scorer, bar.show_share):
                            journal.append(candidate)
                            bar.advance()
                    paths = ask_all(search)
    return load_results(folder)


def _weights(recipe: Recipe, scorer: Scorer | None) -> str | None:
    """Return the digest of the weights that a scorer has read, else of those that are there."""
    return getattr(scorer, "weights", None) or digest_weights(recipe.checkpoint)


def set_aside(recipe: Recipe, folder: str = FOLDER) -> None:
    """Let the next search in a folder begin anew; the journal that is there stays beside it.

    Raises
    ------
    ExperimentError
        Another process is searching in the folder.
    """
    file = recipe.output / folder / JOURNAL_NAME
    if not file.exists():
        return
    with exclusive(file.with_name(".lock"), timeout=0, refusal=_is_used(file.parent)):
        os.replace(file, previous(file))
        file.with_name(RECORD_NAME).unlink(missing_ok=True)


def _is_used(folder: FilePath) -> ExperimentError:
    return ExperimentError(
        f"{folder}: another process is searching here. Wait for its end, or give the recipe "
        "another output folder."
    )


def ask_all(search: Search) -> list[Path]:
    """Return all candidates that the search has before it needs their results."""
    paths = []
    while not isinstance(answer := search.ask(), Signal):
        paths.append(answer)
    return paths


def _evaluate_all(
    search: Search, paths: Sequence[Path], scorer: Scorer, progress: Callable[[float], None]
) -> Iterator[Candidate]:
    """Evaluate paths, together if the scorer can, and tell the search the results."""
    if hasattr(scorer, "score_many"):
        try:
            results = scorer.score_many(paths, progress)
        except Exception as problem:
            raise_if_cuda_is_lost(problem)
            if not (is_of_the_path(problem) or is_out_of_memory(problem)):
                raise
        else:
            for path, metrics in zip(paths, results, strict=True):
                yield tell_result(search, path, metrics)
            return
    for path in paths:  # one at a time, so that only a path that cannot be evaluated fails
        yield _evaluate(search, path, scorer)


def _open_scorer(recipe: Recipe, cached: bool) -> ClosableScorer:
    # PyTorch is not imported to refuse a search, or to show the results of a finished one.
    from nni_spos.experiment.device_pool import open_device_scorer

    return open_device_scorer(recipe, cached)


def _evaluate(search: Search, path: Path, scorer: Scorer) -> Candidate:
    try:
        metrics = scorer(path)
    except Exception as problem:
        if is_of_the_path(problem):
            return search.tell_failure(path, named(problem))
        if is_out_of_memory(problem):
            raise EvaluatorError(
                f"{explain(problem, path)}. Free some, or go on where there is more: what is "
                "scored is kept, and the same command goes on."
            ) from problem
        raise
    return tell_result(search, path, metrics)


def raise_if_cuda_is_lost(problem: Exception) -> None:
    """Raise an error after which this process cannot use the GPU any more, for any path."""
    if str(problem).startswith("CUDA error"):
        raise problem


def tell_result(search: Search, path: Path, metrics: Mapping[str, Any]) -> Candidate:
    """Tell a search the results of a path; one that is not finite is a failure.

    Raises
    ------
    SearchError
        The objective is missing or not a number, which every other path would have too.
    """
    if found := not_finite({name: as_number(value) for name, value in metrics.items()}):
        return search.tell_failure(path, f"{NOT_FINITE}: {found}")
    return search.tell(path, metrics)


class _Progress:
    """A bar over the candidates, with the best result so far.

    Parameters
    ----------
    search
        What is shown.
    shown
        Whether anything is.
    initial
        Number of candidates that are done before the search goes on.
    """

    def __init__(self, search: Search, shown: bool, initial: int):
        self._search = search
        self._next_look = 0.0
        self._bar = open_bar(
            "search", search.num_candidates, "candidate", initial=initial, disable=not shown
        )

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Count one more candidate."""
        self._bar.set_postfix(self._state(), refresh=False)
        self._bar.update()

    def show_share(self, share: float) -> None:
        """Show how much of the candidates that are scored together is done."""
        if time.monotonic() >= self._next_look:
            self._bar.set_postfix({**self._state(), "scored": f"{share:.0%}"})
            self._next_look = time.monotonic() + interval()

    def _state(self) -> dict[str, str]:
        search = self._search
        shown = {"generation": str(search.generation)}
        for best in search.top(1):
            shown[search.objective] = f"{best.metrics[search.objective]:.4g}"
        return shown
