"""The network that is to be exported, wherever it is, and the images to try it with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.data import ImageData, open_data
from nni_spos.data.evaluation import EvaluationBatches
from nni_spos.errors import CheckpointError, RecipeError
from nni_spos.export.base import Array
from nni_spos.export.images import InputImages
from nni_spos.files.yaml_files import is_yaml_name
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Path
from nni_spos.recipe.dataset import find_dataset
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, load_network
from nni_spos.scoring.recalibration import recalibrate
from nni_spos.spaces import Form, read_path
from nni_spos.supernet.building import (
    build_recipe_costs,
    build_recipe_space,
    restore_recipe_supernet,
)
from nni_spos.supernet.checkpoint import load_supernet
from nni_spos.tasks.base import Task
from nni_spos.tasks.lookup import recorded_task
from nni_spos.values import changes

CALIBRATION_IMAGES, CALIBRATION_BATCH = 512, 32
"""Training images that ranges of activations are measured with."""


@dataclass(frozen=True)
class Source:
    """A network that is to be exported.

    Parameters
    ----------
    trained
        The network, with what is known about it.
    file
        Where its weights were.
    kind
        What they are, for people.
    recipe, data
        The recipe, and its images; None without one.
    task
        What it predicts; None where that is a user's and there is no recipe.
    class_names
        Names of classes, labels or values, as far as they are known.
    """

    trained: TrainedNetwork
    file: FilePath
    kind: str
    recipe: Recipe | None
    data: ImageData | None
    task: Task | None
    class_names: Sequence[str]

    @property
    def images(self) -> InputImages:
        """What the network takes. Raises CheckpointError."""
        return InputImages.read(self.trained.preprocessing)

    def validation(self, number: int, batch_size: int) -> EvaluationBatches:
        """Return some search-validation images, spread over all of them; only with data."""
        assert self.data is not None
        return self.data.spread_batches("validation", number, batch_size)

    def test(self, number: int, batch_size: int) -> EvaluationBatches:
        """Return some test images. Raises DataError if there are none."""
        assert self.data is not None
        return self.data.spread_batches("test", number, batch_size)

    def calibration(self) -> Iterator[Array]:
        """Yield training images as the network takes them; only with data."""
        assert self.data is not None
        for images, _ in self.data.recalibration_batches(CALIBRATION_IMAGES, CALIBRATION_BATCH, 0):
            yield images.numpy()


def open_source(
    network_or_recipe: str | os.PathLike[str],
    *,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    path: str | Mapping[str, Any] | None = None,
) -> Source:
    """Open a network that is to be exported.

    Parameters
    ----------
    network_or_recipe
        A file that ``nni-spos retrain`` wrote, or a recipe (``.yml``): its retrained network.
    recipe
        That of a network's file, for its images and for a space of a user's.
    path
        A path, the name of its file, or a published network: take this one with the weights of the
        recipe's supernet.

    Raises
    ------
    RecipeError
        A network's file and a path were given: weights of a supernet are a recipe's.
    SposError
        See `nni_spos.load_recipe`, `nni_spos.load_network` and `nni_spos.open_data`.
    """
    name = os.fspath(network_or_recipe)
    is_recipe = is_yaml_name(name)
    if is_recipe and recipe is not None:
        raise RecipeError("--recipe: the network is named by a recipe already. Leave it out.")
    if not is_recipe and path is not None:
        raise RecipeError(
            "--path: is a path with the weights of a recipe's supernet. Give the recipe, or leave "
            "the path out to export this network."
        )
    loaded = load_recipe(name) if is_recipe else recipe
    if isinstance(loaded, str | os.PathLike):
        loaded = load_recipe(loaded)
    if loaded is None:
        return _alone(FilePath(name))
    data = open_data(loaded.data, task=loaded.task, measured=loaded.files.normalisation)
    if path is not None:
        trained, file, kind = _of_supernet(loaded, data, path)
    else:
        file, kind = (loaded.files.retrained if is_recipe else FilePath(name)), "retrained"
        if is_recipe and not file.exists():
            raise CheckpointError(
                f"{file}: no such file. Train a network first: nni-spos retrain {name} --path "
                "FILE; or give --path FILE for a path with the supernet's weights."
            )
        trained = load_network(file, build_recipe_space(loaded, Form.SUBNET))
        _check_images(file, trained, data)
    return Source(trained, file, kind, loaded, data, data.task, class_names(loaded, data))


def _alone(file: FilePath) -> Source:
    """Return a network without a recipe."""
    try:
        trained = load_network(file)
    except CheckpointError as problem:
        if "is not imported on a file's word" in str(problem):
            raise CheckpointError(
                f"{file}: was made from a space that is not imported on a file's word. Name the "
                "recipe too: --recipe FILE."
            ) from None
        raise
    task = recorded_task(trained.task)
    number = trained.space.num_classes
    return Source(trained, file, "retrained", None, None, task, [str(i) for i in range(number)])


def _of_supernet(
    recipe: Recipe, data: ImageData, given: str | Mapping[str, Any]
) -> tuple[TrainedNetwork, FilePath, str]:
    """Return a path with the weights of the supernet, and statistics of its own."""
    space, costs = build_recipe_costs(recipe)
    path: Path = (
        read_path(given, recipe.space, space) if isinstance(given, str) else space.validate(given)
    )
    checkpoint = load_supernet(recipe.checkpoint)
    network = extract_subnet(restore_recipe_supernet(recipe, checkpoint, data), path)
    settings = recipe.evaluation
    if settings.recalibrate:
        number = min(settings.recalibration_images, data.num_train)
        whole = number - number % settings.batch_size or number
        recalibrate(network, data.recalibration_batches(whole, settings.batch_size, settings.seed))
    trained = TrainedNetwork(
        network=network.eval(),
        path=path,
        costs={name: table.price(path) for name, table in costs.items()},
        settings=recipe.supernet.deciding(),
        preprocessing=data.preprocessing,
        space=SpaceArguments.of(recipe, data),
        task={"name": recipe.task.name, **recipe.task.arguments},
        made_for=describe(Result.SCORES, recipe),
    )
    return trained, recipe.checkpoint, "of the supernet"


def _check_images(file: FilePath, trained: TrainedNetwork, data: ImageData) -> None:
    """Refuse a network that takes other images than the recipe's. Raises CheckpointError."""
    keys = ("num_classes", "channels", "bits", "image_size", "mean", "std")
    before, now = (
        {key: _plain(x.get(key)) for key in keys}
        for x in (trained.preprocessing, data.preprocessing)
    )
    if found := changes(before, now):
        raise CheckpointError(
            f"{file}: was trained on images that were prepared in another way ({found}). Name the "
            "recipe that it was trained with."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def class_names(recipe: Recipe, data: ImageData) -> list[str]:
    """Return the names of the classes, labels or values of a recipe's data; numbers without."""
    number = data.spec.num_classes
    names = [str(name) for name in find_dataset(recipe.data).class_names()]
    return names if len(names) == number else [str(i) for i in range(number)]
