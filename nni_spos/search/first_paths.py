"""The paths that a search of a converted network begins with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

from nni_spos.cost_table import Costs
from nni_spos.errors import ExperimentError
from nni_spos.evolution import Candidate, RandomSearch
from nni_spos.evolution.sensitivity import effects_of, promising_paths, single_changes
from nni_spos.files.atomic import read_json, write_json
from nni_spos.files.digests import digest_content
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.search_settings import SearchSettings
from nni_spos.search.evaluating import ScorePath, SearchProgress, ask_all, evaluate_all
from nni_spos.tasks.base import LOG_LIKELIHOOD, LOSS, Figure
from nni_spos.values import DIGEST

TOGETHER = 16
"""Paths that are scored at a time: what they have in common is computed once."""

SHARE = 0.5
"""Of the first generation; the others are random, so that not all rests on sums of effects."""


def find_first_paths(
    space: PathSpace,
    costs: Costs,
    settings: SearchSettings,
    scorer: ScorePath,
    progress: bool = True,
    figure: Figure | None = None,
) -> list[Path]:
    """Try each choice alone in the network as it is, and return paths that lose least by the sum.

    Parameters
    ----------
    space
        Of a converted network: the first choice of every label is the one that it has.
    costs
        Cost tables by metric.
    settings
        The search, whose limits the paths keep.
    scorer
        See `nni_spos.run_search`. What is compared is the loss where results have one, which tells
        more than the objective, and says it of fewer images.
    progress
        Whether to show a progress bar on standard error.
    figure
        How the objective is shown there.

    Returns
    -------
    The best first, for half of the first generation; none if the network itself cannot be scored.

    Raises
    ------
    EvaluatorError
        There is too little memory for a path.
    SearchError
        Results lack the objective.
    """
    base = {label: choices[0] for label, choices in space.items()}
    tried = single_changes(space, base)
    search = RandomSearch(
        space, {}, population_size=len(tried), num_generations=1, objective=settings.maximised
    )
    search.enqueue(tried)
    waiting = iter(ask_all(search))
    with SearchProgress(search, progress, 0, figure, title="sensitivity") as bar:
        while paths := list(itertools.islice(waiting, TOGETHER)):
            for _ in evaluate_all(search, paths, scorer, bar.show_share):
                bar.advance()
    results = [_result(candidate, settings.maximised) for candidate in search.candidates]
    if not math.isfinite(results[0]):
        return []
    effects = effects_of(space, base, results)
    number = math.ceil(SHARE * settings.population_size)
    return promising_paths(space, costs, settings.constraints, effects, number, settings.seed)


def kept_first_paths(file: FilePath, depends_on: Any, find: Callable[[], list[Path]]) -> list[Path]:
    """Return the paths of a file, which is written if there is none or it is of something else.

    Parameters
    ----------
    file
        JSON.
    depends_on
        What the paths follow from, as JSON values.
    find
        Returns them anew.

    Raises
    ------
    ExperimentError
        The file is damaged.
    """
    kept = read_first_paths(file, depends_on)
    if kept is not None:
        return kept
    paths = find()
    write_json(file, {DIGEST: digest_content(depends_on), "paths": paths})
    return paths


def read_first_paths(file: FilePath, depends_on: Any) -> list[Path] | None:
    """Return the paths of a file; None if there is none, or it is of something else.

    Raises
    ------
    ExperimentError
        The file is damaged.
    """
    content = read_json(file, ExperimentError) if file.exists() else None
    if isinstance(content, dict) and content.get(DIGEST) == digest_content(depends_on):
        return list(content["paths"])
    return None


def _result(candidate: Candidate, objective: str) -> float:
    """Return what is compared; NaN for a path that failed."""
    found = candidate.metrics
    if LOG_LIKELIHOOD in found:
        return float(found[LOG_LIKELIHOOD])
    if LOSS.name in found:
        return -float(found[LOSS.name])
    return float(found.get(objective, math.nan))
