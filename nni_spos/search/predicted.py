"""Paths scored by what a model of some trained ones says they will reach.

The paths that it learns from were each trained alone, see `nni_spos.retraining.standalone`; what
they reached is under ``OUTPUT/standalone``. Needs neither PyTorch nor NNI, so that each trial of an
experiment can ask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nni_spos.cost_table import Costs
from nni_spos.errors import ExperimentError
from nni_spos.files.digests import digest_content
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.prediction import PathModel
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.search_settings import PREDICTED
from nni_spos.recipe.task import find_task
from nni_spos.search.score_cache import ScoreCache
from nni_spos.tasks.base import LOG_LIKELIHOOD

DEVIATION = "predicted_deviation"
"""Name of the standard deviation of a prediction."""

LEAST = 8
"""Trained paths below which nothing is predicted."""

ScoreWeights = Callable[[Sequence[Mapping[str, Choice]]], Sequence[Mapping[str, float]]]
"""From paths to their results with the weights of a supernet."""


def open_accuracies(recipe: Recipe, space: PathSpace) -> ScoreCache:
    """Return what paths reached alone; the file's name is a digest of all that decides that."""
    name = digest_content(describe(Result.STANDALONE, recipe))
    return ScoreCache(recipe.files.standalone_of(name), space)


def known_accuracies(recipe: Recipe, space: PathSpace) -> tuple[list[Path], list[float]]:
    """Return the paths that were trained alone, and the task's objective of each.

    Raises
    ------
    ExperimentError
        There are too few to learn from.
    """
    objective = find_task(recipe.task).objective
    known = [(path, x[objective]) for path, x in open_accuracies(recipe, space).items()]
    if len(known) < LEAST:
        raise ExperimentError(
            f"{recipe.files.standalone}: {len(known)} paths are trained with today's settings, and "
            f"a prediction needs {LEAST} or more. Train some: nni-spos landmarks "
            f"{recipe.file.name} -n 24."
        )
    return [path for path, _ in known], [value for _, value in known]


def digest_accuracies(recipe: Recipe, space: PathSpace) -> str:
    """Return what stands for the trainings that predictions depend on."""
    return digest_content(list(zip(*known_accuracies(recipe, space), strict=True)))


class PredictedScorer:
    """Score paths by a model of those that were trained alone.

    Parameters
    ----------
    recipe
        Whose trainings the model learns from.
    space
        Labels and their choices.
    costs
        Cost tables by metric.
    score_many
        Returns results with a supernet's weights, whose log-likelihood is a further input of the
        model; None: there is none.

    Raises
    ------
    ExperimentError
        There are too few trainings.
    """

    def __init__(
        self, recipe: Recipe, space: PathSpace, costs: Costs, score_many: ScoreWeights | None = None
    ):
        self.paths, self.accuracies = known_accuracies(recipe, space)
        self._score_many = score_many
        self.model = PathModel(space, costs)
        self.model.fit(self.paths, self.accuracies, self._extra(self.paths))

    def __call__(self, path: Mapping[str, Choice]) -> dict[str, float]:
        """Return the results of a path, see `score_many`. Raises PathError."""
        return self.score_many([path])[0]

    def score_many(
        self, paths: Sequence[Mapping[str, Choice]], progress: Any = None
    ) -> list[dict[str, float]]:
        """Return what each path will reach, and the standard deviation of that."""
        means, deviations = self.model.predict(paths, self._extra(paths))
        if progress is not None:
            progress(1.0)
        return [
            {PREDICTED: mean, DEVIATION: deviation}
            for mean, deviation in zip(means.tolist(), deviations.tolist(), strict=True)
        ]

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    def _extra(self, paths: Sequence[Mapping[str, Choice]]) -> list[float] | None:
        if self._score_many is None:
            return None
        return [x[LOG_LIKELIHOOD] for x in self._score_many(paths)]
