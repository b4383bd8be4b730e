"""A trained supernet that scores one path after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.data import ImageData, check_preprocessing, open_data
from nni_spos.errors import CheckpointError
from nni_spos.path import Choice, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.progress import open_bar
from nni_spos.recipe import EvaluationSettings, Recipe
from nni_spos.supernet import evaluate_path, load_supernet, restore_supernet
from nni_spos.supernet.building import build_recipe_supernet


class PathScorer:
    """Score paths with one supernet and one data set.

    Parameters
    ----------
    supernet
        A model space with trained weights; it is used as it is and never changed.
    data
        Training images for recalibration, validation images for the score.
    settings
        How to score, see `nni_spos.supernet.evaluate_path`.
    channels_last
        Memory format of the images.
    """

    def __init__(
        self,
        supernet: ModelSpace,
        data: ImageData,
        settings: EvaluationSettings | None = None,
        channels_last: bool = True,
    ):
        self.supernet = supernet
        self.data = data
        self.settings = settings or EvaluationSettings()
        self.channels_last = channels_last

    def __call__(self, path: Mapping[str, Choice]) -> dict[str, float]:
        """Return ``top1`` and ``top5`` in percent and ``loss``. Raises PathError."""
        found = evaluate_path(self.supernet, path, self.data, self.settings, self.channels_last)
        metrics = dataclasses.asdict(found)
        return {name: metrics[name] for name in ("top1", "top5", "loss")}


def open_scorer(recipe: Recipe) -> PathScorer:
    """Open the data and the trained supernet of a recipe, on the GPU if there is one.

    Raises
    ------
    CheckpointError
        The supernet is not trained yet, or it was trained for another space, on other images or
        with another split.
    DataError, RecipeError
        See `nni_spos.data.open_data` and `nni_spos.spaces.build_space`.
    """
    checkpoint = load_supernet(recipe.checkpoint)
    data = open_data(recipe.data)
    supernet = build_recipe_supernet(recipe)
    try:
        check_preprocessing(checkpoint.preprocessing, data.preprocessing)
        restore_supernet(supernet, checkpoint)
    except CheckpointError as problem:
        raise CheckpointError(f"{recipe.checkpoint}: {problem}") from None
    channels_last = recipe.supernet.channels_last
    supernet.to(
        device="cuda" if torch.cuda.is_available() else "cpu",
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
    return PathScorer(supernet, data, recipe.evaluation, channels_last)


def score_random_paths(recipe: Recipe, count: int) -> list[float]:
    """Return the top-1 accuracies, in percent, of paths drawn uniformly: how good a supernet is.

    Raises
    ------
    CheckpointError, DataError, RecipeError
        See `open_scorer`.
    """
    if not count:
        return []
    scorer = open_scorer(recipe)
    prior = UniformPrior(PathSpace.from_model_space(scorer.supernet), recipe.supernet.seed)
    paths = [prior.path(step) for step in range(count)]
    scores = []
    with open_bar("random paths", count, "path") as bar:
        for path in paths:
            scores.append(scorer(path)["top1"])
            bar.update()
    return scores
