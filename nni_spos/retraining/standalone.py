"""Stand-alone accuracies of paths, each trained by itself for it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath

import torch

from nni_spos.cost_table import Costs
from nni_spos.data import ImageData, open_data
from nni_spos.errors import ExperimentError
from nni_spos.files.digests import digest_content
from nni_spos.files.locks import exclusive
from nni_spos.path import Choice, Path
from nni_spos.recipe.output import training_folder
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.task import find_task
from nni_spos.retraining.retrain import keep_inherited, train_path
from nni_spos.scoring.evaluation import score
from nni_spos.search.predicted import open_accuracies
from nni_spos.tasks.base import LOG_LIKELIHOOD
from nni_spos.training import Start, last_checkpoint


class StandaloneScorer:
    """Score paths by training each of them alone; what is trained once is kept.

    Every path's results are on the disk, under ``OUTPUT/standalone``, as soon as it is trained.
    Several processes can train different paths of a recipe; who wants one that another is training
    waits for it.

    Parameters
    ----------
    recipe
        Its sections space, data and retrain are used.
    costs
        Tables of the space.
    """

    def __init__(self, recipe: Recipe, costs: Costs):
        self._data = open_data(recipe.data, task=recipe.task, measured=recipe.files.normalisation)
        self._recipe = keep_inherited(recipe)
        self._costs = costs
        self._known = open_accuracies(self._recipe, costs["flops"].space)

    def __call__(self, path: Mapping[str, Choice], title: str = "path") -> dict[str, float]:
        """Return a path's results on the validation images. Raises like `train_path`."""
        path = self._costs["flops"].space.validate(path)
        results = self._known.get(path)
        if results is None:
            checkpoints = training_folder(self._known.file) / digest_content(path)
            checkpoints.parent.mkdir(parents=True, exist_ok=True)
            refusal = ExperimentError(f"{checkpoints}: another process is training this path.")
            with exclusive(checkpoints.with_suffix(".lock"), timeout=-1, refusal=refusal):
                results = self._known.get(path)  # somebody else may have trained it
                if results is None:
                    results = _train(
                        self._recipe, path, self._data, self._costs, checkpoints, title
                    )
                    self._known.put(path, results)
                    shutil.rmtree(checkpoints)
        return {**results, LOG_LIKELIHOOD: -results["loss"]}

    def close(self) -> None:
        """Do nothing: there is nothing to let go of."""


def train_standalone(recipe: Recipe, paths: Sequence[Path], costs: Costs) -> list[float]:
    """Train paths one after another, each by itself, and score the search-validation images.

    The training is that of `nni_spos.retraining.retrain.retrain`, which holds these images out; the
    test split is not read. Every accuracy is on the disk, under ``OUTPUT/standalone``, before the
    next training begins. It can be stopped at any moment; the same call goes on from the last
    epoch.

    Parameters
    ----------
    recipe
        Its sections space, data and retrain are used.
    paths
        Label to choice.
    costs
        Tables of the space.

    Returns
    -------
    The task's objective on the validation images, in the order of the paths.

    Raises
    ------
    CheckpointError, DataError
        See `nni_spos.retraining.retrain.retrain`.
    ExperimentError
        Another process trains paths of the recipe.
    """
    scorer = StandaloneScorer(recipe, costs)
    objective = find_task(recipe.task).objective
    refusal = ExperimentError(f"{recipe.files.standalone}: another process is training paths here.")
    with exclusive(recipe.files.standalone_lock, timeout=0, refusal=refusal):
        return [
            scorer(path, f"path {number}/{len(paths)}")[objective]
            for number, path in enumerate(paths, 1)
        ]


def _train(
    recipe: Recipe, path: Path, data: ImageData, costs: Costs, folder: FilePath, title: str
) -> dict[str, float]:
    """Train a path from its last checkpoint in a folder, if there is one, and score it."""
    start = Start.RESUME if last_checkpoint(folder) else Start.NEW
    trained = train_path(recipe, path, data, costs, folder.with_suffix(".pt"), start, title)
    network = trained.network.to("cuda" if torch.cuda.is_available() else "cpu")
    batches = data.validation_batches(recipe.evaluation.batch_size)
    return dict(score(network, batches, task=data.task).figures)
