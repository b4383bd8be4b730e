"""Stand-alone accuracies of paths: looked up in a published table, or trained for here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path as FilePath

import torch

from nni_spos.cost_table import Costs
from nni_spos.data import ImageData, open_data
from nni_spos.digests import digest_content
from nni_spos.errors import DataError, ExperimentError
from nni_spos.experiment.score_cache import ScoreCache
from nni_spos.identity import Result, describe
from nni_spos.locks import exclusive
from nni_spos.path import Path, PathSpace
from nni_spos.recipe import Recipe
from nni_spos.retrain import keep_inherited, train_path
from nni_spos.spaces import load_nas_bench_macro
from nni_spos.spaces.nasbench_macro import SPACE, NASBenchMacro, code_from_path
from nni_spos.supernet.evaluation import score
from nni_spos.training import Start, last_checkpoint

FOLDER = "standalone"
"""Folder of the accuracies, in the recipe's output folder."""


def load_table(file: str | os.PathLike[str], space: PathSpace, costs: Costs) -> NASBenchMacro:
    """Read the table of NAS-Bench-Macro for the space of a recipe.

    Raises
    ------
    DataError
        The file is missing or not the whole table, the space is another one, or its networks are
        others, since the recipe's images are.
    """
    if space != SPACE:
        raise DataError(
            f"{file}: is a table of the space nasbench_macro, and the recipe's space is another "
            "one. Train paths of it instead: --retrain N."
        )
    table = load_nas_bench_macro(file)
    own = costs["flops"].price_many(SPACE.enumerate())
    if differing := (own != table.flops).nonzero()[0].tolist():
        first = differing[0]
        code = code_from_path(SPACE.decode(SPACE.enumerate()[[first]])[0])
        raise DataError(
            f"{file}: network '{code}' has {table.flops[first]:,} multiply-adds, but "
            f"{own[first]:,} in the recipe. The table is of CIFAR-10: 3 channels, 32 pixels, "
            "10 classes."
        )
    return table


def train_standalone(recipe: Recipe, paths: Sequence[Path], costs: Costs) -> list[float]:
    """Train paths one after another, each by itself, and score the search-validation images.

    The training is that of `nni_spos.retrain.retrain`, which holds these images out; the test
    split is not read. Every accuracy is on the disk, under ``OUTPUT/standalone``, before the next
    training begins. It can be stopped at any moment; the same call goes on from the last epoch.

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
    Validation accuracies in percent, in the order of the paths.

    Raises
    ------
    CheckpointError, DataError
        See `nni_spos.retrain.retrain`.
    ExperimentError
        Another process trains paths of the recipe.
    """
    data = open_data(recipe.data)
    recipe = keep_inherited(recipe)
    folder = recipe.output / FOLDER
    refusal = ExperimentError(f"{folder}: another process is training paths here.")
    known = _open_accuracies(recipe, costs)
    accuracies = []
    with exclusive(folder / ".lock", timeout=0, refusal=refusal):
        for number, path in enumerate(paths, 1):
            results = known.get(path)
            if results is None:
                title = f"path {number}/{len(paths)}"
                checkpoints = known.file.with_suffix("") / digest_content(path)
                results = _train(recipe, path, data, costs, checkpoints, title)
                known.put(path, results)
                shutil.rmtree(checkpoints)
            accuracies.append(results["top1"])
    return accuracies


def _open_accuracies(recipe: Recipe, costs: Costs) -> ScoreCache:
    """Return what is kept; the file's name is a digest of all that decides an accuracy."""
    name = digest_content(describe(Result.STANDALONE, recipe))
    file = recipe.output / FOLDER / f"{name}.jsonl"
    return ScoreCache(file, costs["flops"].space)


def _train(
    recipe: Recipe, path: Path, data: ImageData, costs: Costs, folder: FilePath, title: str
) -> dict[str, float]:
    """Train a path from its last checkpoint in a folder, if there is one, and score it."""
    start = Start.RESUME if last_checkpoint(folder) else Start.NEW
    trained = train_path(recipe, path, data, costs, folder.with_suffix(".pt"), start, title)
    network = trained.network.to("cuda" if torch.cuda.is_available() else "cpu")
    found = score(network, data.validation_batches(recipe.evaluation.batch_size))
    return {"top1": found.top1, "top5": found.top5, "loss": found.loss}
