"""Train the network of one path from scratch, and look at the test images once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path as FilePath

import torch
from torch import Tensor, nn

from nni_spos.cost_table import Costs
from nni_spos.data import ImageData, open_data
from nni_spos.errors import CheckpointError, NotFiniteError, RecipeError
from nni_spos.files.digests import digest_content
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Choice, Path
from nni_spos.process.stage_cost import StageCost
from nni_spos.ranks import check_training, run_processes
from nni_spos.recipe.identity import TEST_IMAGES, Result, describe
from nni_spos.recipe.output import training_folder
from nni_spos.recipe.recipe import Recipe
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, load_network, save_network
from nni_spos.scoring.evaluation import score
from nni_spos.scoring.failures import describe_not_finite
from nni_spos.search.kept_supernets import check_kept, keep_supernet
from nni_spos.spaces import Form
from nni_spos.supernet.building import (
    build_recipe_costs,
    build_recipe_space,
    restore_recipe_supernet,
)
from nni_spos.supernet.checkpoint import load_supernet
from nni_spos.supernet.rehearsal import rehearse_retraining
from nni_spos.tasks.base import LOSS, Task
from nni_spos.training import (
    Start,
    TrainingCost,
    build_evaluator,
    check_finished,
    exclusive,
    is_written,
    prepare_start,
    tensor_shapes,
    threads_for,
    training_session,
)
from nni_spos.training.techniques.kd import LARGEST


def retrain(
    recipe: Recipe,
    path: Mapping[str, Choice],
    file: FilePath | None = None,
    start: Start | FilePath = Start.NEW,
) -> TrainedNetwork:
    """Train a path, with affine BatchNorm, then score the test split.

    Weights are fresh, or with ``initial_weights: supernet`` those that the path has in the
    supernet.

    The search-validation images stay held out, so that their figure (in the search) and the test
    figure are both of images that the weights never saw.

    Parameters
    ----------
    recipe
        Its sections space, data and retrain are used, and its latency tables: the network's costs
        are those of the path in every table.
    path
        Label to choice.
    file
        Where weights, path, costs, settings and the test figure go; by default
        ``retrained.pt`` in the recipe's output folder. Checkpoints of the epochs and
        TensorBoard's logs are in the folder of the same name without the suffix.
    start
        Whether to begin or to go on, or a checkpoint to go on from. Going on with a finished
        training does what is missing: the test figure, if the images were not there, and the costs
        in latency tables that have changed.

    Warns
    -----
    LatencyWarning
        A latency table was measured under other conditions.

    Raises
    ------
    PathError
        The path is not one of the recipe's space.
    CheckpointError
        There is such a network already, or one of another path, nothing to resume, a checkpoint
        of other settings, another process that trains, or no supernet to begin with.
    CostError
        A latency table is missing, damaged or of another space.
    RehearsalError
        The network's own code fails, see `nni_spos.supernet.rehearsal.rehearse_retraining`.
    DataError, RecipeError, ProcessError
        See `nni_spos.data.open_data`, `nni_spos.spaces.build_space` and
        `nni_spos.ranks.run_processes`.
    """
    file = file or recipe.files.retrained
    _check_file(file, recipe)
    folder = training_folder(file)
    space, costs = build_recipe_costs(recipe)  # a wrong table is refused before the training
    path = space.validate(path)
    data = open_data(recipe.data, task=recipe.task, measured=recipe.files.normalisation)
    check_training(recipe.retrain, data.spec.image_size)  # before anything is written
    with exclusive(folder, timeout=0):
        if start in (Start.RESUME, Start.CONTINUE) and is_written(file):
            trained = load_network(file, build_recipe_space(recipe, Form.SUBNET))
            if trained.path != path:
                raise CheckpointError(
                    f"{file}: is the network of another path. --output names another file, "
                    "--overwrite trains anew."
                )
            _check_todays(file, trained, recipe)
            if trained.costs != (prices := _prices(path, costs)):  # a latency was measured anew
                trained = dataclasses.replace(trained, costs=prices)
                save_network(file, trained)
        else:
            inherits = recipe.retrain.initial_weights == "supernet"
            title = "finetune" if inherits and recipe.space.is_converted else "retrain"
            trained = train_path(recipe, path, data, costs, file, start, title)
            save_network(file, trained)  # before the test images, which may be missing
        if trained.test is None or not trained.test.keys() >= _test_figures(data.task):
            trained = _score_test_split(trained, data, recipe)
            save_network(file, trained)
    return trained


def train_path(
    recipe: Recipe,
    path: Path,
    data: ImageData,
    costs: Costs,
    file: FilePath,
    start: Start | FilePath,
    title: str = "retrain",
) -> TrainedNetwork:
    """Train a path as `retrain` does, without a look at the test images.

    Parameters
    ----------
    recipe, path, start
        As for `retrain`; the path is not checked.
    data
        Its training split is used.
    costs
        Tables that price the path.
    file
        Checkpoints and logs go to the folder of this name without the suffix; the file itself is
        not written.
    title
        Shown beside the progress bar.

    Raises
    ------
    CheckpointError, RehearsalError
        See `retrain`.
    """
    check_training(recipe.retrain, data.spec.image_size)  # before anything is deleted
    data.check_batch_size(recipe.retrain.batch_size, "retrain")
    folder = training_folder(file)
    recipe = with_teacher(recipe, data, costs)
    layout = rehearse_retraining(recipe, path, data)
    recipe = keep_inherited(recipe)
    resume = prepare_start(start, folder, file)
    made_for = describe(Result.STANDALONE, recipe)
    fit = (recipe, path, data, folder, layout, costs["flops"].price(path), resume, title)
    weights, cost = run_processes(recipe.retrain, _fit, *fit)
    network = build_recipe_space(recipe, Form.SUBNET, recipe.retrain.seed, path)
    network.to(memory_format=layout)
    network.load_state_dict(weights)
    return TrainedNetwork(
        network=network.eval(),
        path=path,
        costs=_prices(path, costs),
        settings=recipe.retrain.deciding(),
        preprocessing=data.preprocessing,
        space=SpaceArguments.of(recipe, data),
        task={"name": recipe.task.name, **recipe.task.arguments},
        cost=None if cost is None else cost.to_json(),
        made_for=made_for,
    )


def _fit(
    recipe: Recipe,
    path: Path,
    data: ImageData,
    folder: FilePath,
    layout: torch.memory_format,
    multiply_adds: float,
    resume: FilePath | None,
    title: str,
) -> tuple[dict[str, Tensor], StageCost | None]:
    """Train, as one of the processes of a training; return weights and cost."""
    network = build_recipe_space(recipe, Form.SUBNET, recipe.retrain.seed, path)
    if recipe.retrain.initial_weights == "supernet":
        _inherit_weights(network, recipe, path, data)
    meter = TrainingCost()
    evaluator = build_evaluator(
        recipe.retrain,
        data,
        folder,
        title=title,
        identity={
            **describe(Result.STANDALONE, recipe),
            "path": path,
            "preprocessing": data.preprocessing,
            "tensors": tensor_shapes(network),
        },
        resume=resume,
        callbacks=[meter],
        layout=layout,
    )
    with training_session(), threads_for(multiply_adds, recipe.retrain.batch_size):
        evaluator.evaluate(network)
    return network.state_dict(), meter.cost


def with_teacher(recipe: Recipe, data: ImageData, costs: Costs) -> Recipe:
    """Return a recipe whose retraining knows its teacher, if that is the space's largest path.

    The teacher is trained first, as the recipe's section says but without one of its own, and with
    seed 0, so that repeated trainings share it. It stays in the output folder.
    """
    asked = [x for x in recipe.retrain.techniques if x.name == "kd" and x.own().kd == LARGEST]
    if not asked:
        return recipe
    others = tuple(x for x in recipe.retrain.techniques if x not in asked)
    alone = dataclasses.replace(recipe.retrain, techniques=others, seed=0)
    lone = dataclasses.replace(recipe, retrain=alone)
    _, path = costs["flops"].dearest()
    file = recipe.files.teacher(digest_content(describe(Result.STANDALONE, lone))[:16])
    with exclusive(training_folder(file), timeout=-1):
        if not is_written(file):
            trained = train_path(lone, path, data, costs, file, Start.CONTINUE, "teacher")
            save_network(file, trained)
    known = dataclasses.replace(asked[0], place=dataclasses.replace(asked[0].place, teacher=file))
    techniques = tuple(known if x in asked else x for x in recipe.retrain.techniques)
    settings = dataclasses.replace(recipe.retrain, techniques=techniques)
    return dataclasses.replace(recipe, retrain=settings)


def keep_inherited(recipe: Recipe) -> Recipe:
    """Return a recipe whose networks begin with weights of one supernet, if with any at all."""
    return keep_supernet(recipe) if recipe.retrain.initial_weights == "supernet" else recipe


def _inherit_weights(network: nn.Module, recipe: Recipe, path: Path, data: ImageData) -> None:
    """Begin with the supernet's weights for a path; BatchNorm's, which it lacks, stay new."""
    checkpoint = load_supernet(recipe.checkpoint)
    check_kept(recipe, checkpoint.digest)
    supernet = restore_recipe_supernet(recipe, checkpoint, data)
    network.load_state_dict(extract_subnet(supernet, path).state_dict(), strict=False)


def _check_file(file: FilePath, recipe: Recipe) -> None:
    """Refuse a name that leaves none for what is kept beside the file. Raises RecipeError."""
    if file.suffix in ("", ".lock"):
        raise RecipeError(
            f"{file}: the file of a network needs a suffix such as .pt; without it, or with .lock, "
            "this is the name of the folder of its checkpoints, or of their lock."
        )
    if os.path.realpath(file) == os.path.realpath(recipe.checkpoint):
        raise RecipeError(f"{file}: is the file of the supernet. Name another one.")


def _prices(path: Path, costs: Costs) -> dict[str, float]:
    return {name: table.price(path) for name, table in costs.items()}


def _test_figures(task: Task) -> set[str]:
    """Return the names of all that is known of the test split."""
    return {*(x.name for x in task.figures), LOSS.name, "num_images"}


def _check_todays(file: FilePath, trained: TrainedNetwork, recipe: Recipe) -> None:
    """Refuse a finished network that today's training would not give. Raises CheckpointError."""
    now = describe(Result.NETWORK, recipe)
    if trained.test is None:  # the test images may have come since
        now.pop(TEST_IMAGES, None)
    check_finished(file, trained.made_for, now)


def _score_test_split(trained: TrainedNetwork, data: ImageData, recipe: Recipe) -> TrainedNetwork:
    """The last line of a retraining, and the only reader of the test images."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = data.test_batches(recipe.evaluation.batch_size)
    result = score(trained.network.to(device), batches, task=data.task).to_json()
    trained.network.to("cpu")
    if found := describe_not_finite(result):
        raise NotFiniteError(f"on the test images {found}.")
    known = describe(Result.NETWORK, recipe)
    tested = {name: known[name] for name in (TEST_IMAGES,) if name in known}
    made_for = None if trained.made_for is None else {**trained.made_for, **tested}
    return dataclasses.replace(trained, test=result, made_for=made_for)
