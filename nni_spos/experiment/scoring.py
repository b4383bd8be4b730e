"""A trained supernet that scores paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.data import ImageData, open_data
from nni_spos.experiment.score_cache import ScoreCache, open_score_cache
from nni_spos.freed_memory import keep_freed_memory
from nni_spos.kept_supernets import check_kept, keep_for_trial
from nni_spos.path import Choice, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.progress import open_bar
from nni_spos.recipe import EvaluationSettings, Recipe
from nni_spos.supernet import evaluate_paths, load_supernet
from nni_spos.supernet.building import restore_recipe_supernet
from nni_spos.supernet.evaluation import Progress
from nni_spos.supernet.scoring_format import can_be_channels_last
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

        They are ``top1`` and ``top5`` in percent, ``loss``, and ``log_likelihood``: minus the
        loss, so that it can be maximised.

        `progress` is called with the share that is done. Raises PathError.
        """
        known = [self.cache.get(path) if self.cache else None for path in paths]
        missing = [path for path, results in zip(paths, known, strict=True) if results is None]
        new = self.evaluate(missing, progress) if missing else []
        if self.cache:
            for path, results in zip(missing, new, strict=True):
                if not not_finite(results):  # a failure is no score
                    self.cache.put_if_possible(path, results)
        rest = iter(new)
        found = [next(rest) if results is None else results for results in known]
        return [{**results, "log_likelihood": -results["loss"]} for results in found]

    def evaluate(
        self, paths: Sequence[Mapping[str, Choice]], progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return ``top1``, ``top5`` and ``loss``, as `score_many` does, without the cache."""
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
    """

    def __init__(
        self,
        supernet: ModelSpace,
        data: ImageData,
        settings: EvaluationSettings | None = None,
        channels_last: bool = True,
        cache: ScoreCache | None = None,
        weights: str | None = None,
    ):
        super().__init__(cache, weights)
        self.supernet = supernet
        self.data = data
        self.settings = settings or EvaluationSettings()
        self.channels_last = channels_last

    def evaluate(
        self, paths: Sequence[Mapping[str, Choice]], progress: Progress | None = None
    ) -> list[dict[str, float]]:
        """Return the results of several paths, see `evaluate_paths`. Raises PathError."""
        found = evaluate_paths(
            self.supernet, paths, self.data, self.settings, self.channels_last, progress
        )
        return [{"top1": x.top1, "top5": x.top5, "loss": x.loss} for x in found]


def open_scorer(recipe: Recipe, cached: bool = True, device: str | None = None) -> PathScorer:
    """Open the data and the trained supernet of a recipe.

    From here on the process keeps the memory of freed tensors. A trial of NNI opens the supernet
    that its experiment has kept, see `nni_spos.kept_supernets`.

    Parameters
    ----------
    recipe
        Its sections space, data, supernet and evaluation are used.
    cached
        Whether results are shared with other searches of the supernet, see
        `nni_spos.experiment.score_cache`.
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
    data = open_data(recipe.data, recipe.output / "images")
    supernet = restore_recipe_supernet(recipe, checkpoint, data)
    supernet.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    channels_last = recipe.supernet.channels_last and can_be_channels_last(
        supernet, data.spec.input_shape
    )
    supernet.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    cached = cached and recipe.evaluation.cache
    weights = checkpoint.digest
    cache = open_score_cache(recipe, checkpoint.space, weights) if cached else None
    return PathScorer(supernet, data, recipe.evaluation, channels_last, cache, weights)


def score_random_paths(recipe: Recipe, count: int) -> list[float]:
    """Return the top-1 accuracies, in percent, of paths drawn uniformly: how good a supernet is.

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
            scores.append(scorer(path)["top1"])
            bar.update()
    return scores
