"""Ask a search for its candidates, evaluate them, and tell it the results; with a bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nni_spos.display.progress import interval, open_bar
from nni_spos.errors import EvaluatorError
from nni_spos.evolution import Candidate, Search, Signal
from nni_spos.path import Path
from nni_spos.scoring.failures import (
    describe_not_finite,
    explain,
    is_of_the_path,
    is_out_of_memory,
    named,
    raise_if_cuda_is_lost,
)
from nni_spos.tasks.base import Figure, plain_figure
from nni_spos.values import as_number

ScorePath = Callable[[Path], Mapping[str, Any]]
"""From a path to its results by name, e.g. `nni_spos.search.scorer.PathScorer`."""


def ask_all(search: Search) -> list[Path]:
    """Return all candidates that the search has before it needs their results."""
    paths = []
    while not isinstance(answer := search.ask(), Signal):
        paths.append(answer)
    return paths


def evaluate_all(
    search: Search, paths: Sequence[Path], scorer: ScorePath, progress: Callable[[float], None]
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


def _evaluate(search: Search, path: Path, scorer: ScorePath) -> Candidate:
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


def tell_result(search: Search, path: Path, metrics: Mapping[str, Any]) -> Candidate:
    """Tell a search the results of a path; one that is not finite is a failure.

    Raises
    ------
    SearchError
        The objective is missing or not a number, which every other path would have too.
    """
    if found := describe_not_finite({name: as_number(x) for name, x in metrics.items()}):
        return search.tell_failure(path, found)
    return search.tell(path, metrics)


class SearchProgress:
    """A bar over the candidates, with the best result so far.

    Parameters
    ----------
    search
        What is shown.
    shown
        Whether anything is.
    initial
        Number of candidates that are done before the search goes on.
    figure
        How the objective is shown; None: nobody has described it.
    title
        Shown in front of the bar.
    """

    def __init__(
        self,
        search: Search,
        shown: bool,
        initial: int,
        figure: Figure | None = None,
        title: str = "search",
    ):
        self._search = search
        self._figure = figure or plain_figure(search.objective)
        self._next_look = 0.0
        self._bar = open_bar(
            title, search.num_candidates, "candidate", initial=initial, disable=not shown
        )

    def __enter__(self) -> SearchProgress:
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
            shown[self._figure.brief] = self._figure.format(best.metrics[search.objective])
        return shown
