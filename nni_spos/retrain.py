"""Train the network of one path from scratch, and look at the test images once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path as FilePath

import torch
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.data import ImageData, open_data
from nni_spos.network import SpaceArguments, TrainedNetwork, load_network, save_network
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.profilers import build_costs
from nni_spos.recipe import Recipe
from nni_spos.spaces import Form
from nni_spos.supernet.building import build_recipe_space
from nni_spos.supernet.evaluation import score
from nni_spos.supernet.subnet import extract_subnet
from nni_spos.training import Start, build_evaluator, exclusive, prepare_start, training_session


def retrain(
    recipe: Recipe,
    path: Mapping[str, Choice],
    file: FilePath | None = None,
    start: Start | FilePath = Start.NEW,
) -> TrainedNetwork:
    """Train a path with fresh weights and affine BatchNorm, then score the test split.

    The search-validation images stay held out, so that their figure (in the search) and the test
    figure are both of images that the weights never saw.

    Parameters
    ----------
    recipe
        Its sections space, data and retrain are used.
    path
        Label to choice.
    file
        Where weights, path, costs, settings and the test figure go; by default
        ``retrained.pt`` in the recipe's output folder. Checkpoints of the epochs and
        TensorBoard's logs are in the folder of the same name without the suffix.
    start
        Whether to begin or to go on, or a checkpoint to go on from. Going on with a finished
        training does what is missing: the test figure, if the images were not there.

    Raises
    ------
    PathError
        The path is not one of the recipe's space.
    CheckpointError
        There is such a network already, nothing to resume, a checkpoint of other settings, or
        another process that trains.
    DataError, RecipeError
        See `nni_spos.data.open_data` and `nni_spos.spaces.build_space`.
    """
    file = file or recipe.retrained
    folder = file.with_suffix("")
    space = build_recipe_space(recipe, Form.SUBNET, recipe.retrain.seed)
    path = PathSpace.from_model_space(space).validate(path)
    data = open_data(recipe.data)
    with exclusive(folder, timeout=0):
        if start is Start.RESUME and file.exists():
            trained = load_network(file, space)
        else:
            trained = _train(recipe, path, data, space, file, start)
            save_network(file, trained)  # before the test images, which may be missing
        if trained.test is None:
            trained = _score_test_split(trained, data, recipe.evaluation.batch_size)
            save_network(file, trained)
    return trained


def _train(
    recipe: Recipe,
    path: Path,
    data: ImageData,
    space: ModelSpace,
    file: FilePath,
    start: Start | FilePath,
) -> TrainedNetwork:
    network = extract_subnet(space, path)
    folder = file.with_suffix("")
    evaluator = build_evaluator(
        recipe.retrain,
        data,
        folder,
        title="retrain",
        identity={
            "space": {"name": recipe.space.name, **recipe.space.arguments},
            "path": path,
            "preprocessing": data.preprocessing,
        },
        resume=prepare_start(start, folder, file),
    )
    with training_session():
        evaluator.evaluate(network)
    spec = data.spec
    tables = build_costs(space, spec.input_shape)
    return TrainedNetwork(
        network=network.eval(),
        path=path,
        costs={name: table.price(path) for name, table in tables.items()},
        settings=recipe.retrain.deciding(),
        preprocessing=data.preprocessing,
        space=SpaceArguments(
            recipe.space.name,
            dict(recipe.space.arguments),
            spec.num_classes,
            spec.channels,
            spec.image_size,
        ),
    )


def _score_test_split(trained: TrainedNetwork, data: ImageData, batch_size: int) -> TrainedNetwork:
    """The last line of a retraining, and the only reader of the test images."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result = score(trained.network.to(device), data.test_batches(batch_size))
    trained.network.to("cpu")
    return dataclasses.replace(trained, test=dataclasses.asdict(result))
