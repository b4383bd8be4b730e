"""A trained supernet that scores paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.data import ImageData, open_data
from nni_spos.display.progress import Progress, open_bar
from nni_spos.path import Choice, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.process.freed_memory import keep_freed_memory
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.evaluation import evaluate_paths
from nni_spos.scoring.racing import Race
from nni_spos.scoring.scoring_format import can_be_channels_last
from nni_spos.search.kept_supernets import check_kept, keep_for_trial
from nni_spos.search.score_cache import NUM_IMAGES, ScoreCache, open_score_cache
from nni_spos.supernet import load_supernet
from nni_spos.supernet.building import restore_recipe_supernet
from nni_spos.tasks.base import LOG_LIKELIHOOD
from nni_spos.values import not_finite


class Scorer:
    """Score paths, those that are known already out of a cache.

    Parameters
    ----------
    cache
        Where results are looked for first, and kept.
    weights
        Digest of the supernet's weights, as they were read; None: they are not from a file.
    """

    def __init__(self, cache: ScoreCache | None = None, weights: str | None = None):
        self.cache = cache
        self.weights = weights

    def __call__(self, path: Mapping[str, Choice]) -> dict[str, float]:
        """Return the results of a path, see `score_many`. Raises PathError."""
        return self.score_many([path])[0]

    def score_many(
        self, paths: Sequence[Mapping[str, Choice]], progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return the results of several paths, in their order; NaN for outputs that are not finite.

        They are the figures of the task, such as ``top1`` in percent, ``loss``, and
        ``log_likelihood``: minus the loss, so that it can be maximised.

        `progress` is called with the share that is done. Raises PathError.
        """
        known = [self.cache.get(path) if self.cache else None for path in paths]
        missing = [path for path, results in zip(paths, known, strict=True) if results is None]
        new = self.evaluate(missing, progress) if missing else []
        if self.cache:
            for path, results in zip(missing, new, strict=True):
                # A failure is no score, nor is an estimate of one.
                if not not_finite(results) and not self.is_partial(results):
                    self.cache.put_if_possible(path, results)
        rest = iter(new)
        found = [next(rest) if results is None else results for results in known]
        return [{**results, LOG_LIKELIHOOD: -results["loss"]} for results in found]

    def is_partial(self, results: Mapping[str, float]) -> bool:
        """Whether results are of some of the images, since the path was dropped in a race."""
        return False

    def evaluate(
        self, paths: Sequence[Mapping[str, Choice]], progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return the figures of the task and ``loss``, as `score_many` does, without the cache."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of processes, if there are any."""


class PathScorer(Scorer):
    """Score paths with one supernet and one data set, a generation at a time if there is one.

    Parameters
    ----------
    supernet
        A model space with trained weights; it is used as it is and never changed.
    data
        Training images for recalibration, validation images for the score.
    settings
        How to score, see `nni_spos.supernet.evaluate_paths`.
    channels_last
        Memory format of the images.
    cache, weights
        See `Scorer`.
    race
        See `evaluate_paths`; the results then have ``num_images``, the images that they are of.
    """

    def __init__(
        self,
        supernet: ModelSpace,
        data: ImageData,
        settings: EvaluationSettings | None = None,
        channels_last: bool = True,
        cache: ScoreCache | None = None,
        weights: str | None = None,
        race: Race | None = None,
    ):
        super().__init__(cache, weights)
        self.race = race
        self.supernet = supernet
        self.data = data
        self.settings = settings or EvaluationSettings()
        self.channels_last = channels_last

    def evaluate(
        self, paths: Sequence[Mapping[str, Choice]], progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return the results of several paths, see `evaluate_paths`. Raises PathError."""
        found = evaluate_paths(
            self.supernet, paths, self.data, self.settings, self.channels_last, progress, self.race
        )
        if self.race is None:
            return [dict(x.figures) for x in found]
        return [{**x.figures, NUM_IMAGES: x.num_images} for x in found]

    def is_partial(self, results: Mapping[str, float]) -> bool:
        """Whether a race dropped the path."""
        return self.race is not None and results[NUM_IMAGES] < self.data.num_validation


def open_scorer(recipe: Recipe, cached: bool = True, device: str | None = None) -> PathScorer:
    """Open the data and the trained supernet of a recipe.

    From here on the process keeps the memory of freed tensors. A trial of NNI opens the supernet
    that its experiment has kept, see `nni_spos.search.kept_supernets`.

    Parameters
    ----------
    recipe
        Its sections space, data, supernet and evaluation are used.
    cached
        Whether results are shared with other searches of the supernet, see
        `nni_spos.search.score_cache`.
    device
        Of the supernet, such as ``cuda:1``; None: the GPU if there is one, else the CPU.

    Raises
    ------
    CheckpointError
        The supernet is not trained yet, or it was trained for another space, on other images or
        with another split, or it is not the one that was kept.
    DataError, RecipeError
        See `nni_spos.data.open_data` and `nni_spos.spaces.build_space`.
    """
    keep_freed_memory()
    recipe = keep_for_trial(recipe)
    checkpoint = load_supernet(recipe.checkpoint)
    check_kept(recipe, checkpoint.digest)
    measured = recipe.files.normalisation
    data = open_data(recipe.data, recipe.files.images, recipe.task, measured=measured)
    supernet = restore_recipe_supernet(recipe, checkpoint, data)
    supernet.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    channels_last = recipe.supernet.channels_last and can_be_channels_last(
        supernet, data.spec.input_shape
    )
    supernet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    cached = cached and recipe.evaluation.cache
    weights = checkpoint.digest
    cache = open_score_cache(recipe, checkpoint.space, weights) if cached else None
    race = None
    if recipe.evaluation.racing is not None:
        objective = recipe.search.maximised
        data.task.check_racing(objective)
        race = Race(recipe.evaluation.racing, objective, data.task)
    return PathScorer(supernet, data, recipe.evaluation, channels_last, cache, weights, race)


def score_random_paths(recipe: Recipe, count: int) -> list[float]:
    """Return the task's objective for paths drawn uniformly: how good a supernet is.

    Raises
    ------
    CheckpointError, DataError, RecipeError
        See `open_scorer`.
    """
    if not count:
        return []
    scorer = open_scorer(recipe, cached=False)
    prior = UniformPrior(PathSpace.from_model_space(scorer.supernet), recipe.supernet.seed)
    paths = [prior.path(step) for step in range(count)]
    scores = []
    with open_bar("random paths", count, "path") as bar:
        for path in paths:
            scores.append(scorer(path)[scorer.data.task.objective])
            bar.update()
    return scores
