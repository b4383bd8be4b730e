"""The space of a recipe as a model, with the classes, channels and size of the recipe's images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.components import explain
from nni_spos.cost_table import Costs
from nni_spos.data import DatasetSpec, ImageData, check_preprocessing, dataset_spec
from nni_spos.errors import CheckpointError, CostError, SposError, StaleWarning
from nni_spos.latency.recipe_tables import load_latencies
from nni_spos.metrics.building import build_metrics
from nni_spos.path import Choice, PathSpace
from nni_spos.profilers import build_costs
from nni_spos.profilers.copying import copy_network
from nni_spos.profilers.dry_run import run_dry
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.task import find_task
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.supernet.checkpoint import SupernetCheckpoint, restore_supernet
from nni_spos.supernet.strategy import SinglePathOneShot
from nni_spos.tasks.base import Task
from nni_spos.values import changes


def build_recipe_supernet(recipe: Recipe, seed: int | None = None) -> ModelSpace:
    """Build the supernet of a recipe: its space, with the weights that paths share.

    The parameters and errors are those of `build_recipe_space`.
    """
    with _seeded(seed):
        supernet = SinglePathOneShot().mutate_model(build_recipe_space(recipe, Form.SUPERNET))
        if recipe.space.is_converted and recipe.supernet.initial_weights == "random":
            draw_weights(supernet)
        for technique in recipe.supernet.techniques:
            technique.find().change_supernet(technique.own(), supernet)
        return supernet


def draw_weights(network: nn.Module) -> None:
    """Let every layer of a network begin anew, as PyTorch's own do."""
    for module in network.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()


def restore_recipe_supernet(
    recipe: Recipe, checkpoint: SupernetCheckpoint, data: ImageData
) -> ModelSpace:
    """Build the supernet of a recipe with the weights of its checkpoint.

    Raises
    ------
    CheckpointError
        The checkpoint, whose file is named, belongs to other data or to another space.
    """
    supernet = build_recipe_supernet(recipe)
    try:
        check_preprocessing(checkpoint.preprocessing, data.preprocessing)
        _check_made_for(recipe, checkpoint)
        restore_supernet(supernet, checkpoint)
    except CheckpointError as problem:
        raise CheckpointError(f"{recipe.checkpoint}: {problem}") from None
    return supernet


def _check_made_for(recipe: Recipe, checkpoint: SupernetCheckpoint) -> None:
    """Refuse weights of another model or other images; warn of those of another training.

    Raises
    ------
    CheckpointError
        They were trained for another one, and what differs.
    """
    if checkpoint.made_for is None:
        return
    before, now = dict(checkpoint.made_for), describe(Result.SUPERNET, recipe)
    training = changes(*({"supernet": x.pop("supernet", {})} for x in (before, now)))
    if found := changes(before, now):
        raise CheckpointError(
            f"was trained for another model or other images ({found}). Undo the change, or train "
            "anew: nni-spos train RECIPE --overwrite."
        )
    if training:
        text = (
            f"{recipe.checkpoint}: was trained with other settings than today's ({training}). To "
            "train anew: nni-spos train RECIPE --overwrite."
        )
        warnings.warn(text, StaleWarning, stacklevel=3)


def build_recipe_space(
    recipe: Recipe,
    form: Form,
    seed: int | None = None,
    path: Mapping[str, Choice] | None = None,
) -> ModelSpace:
    """Build the model space that a recipe names, or the network of one of its paths.

    Parameters
    ----------
    recipe
        Its sections ``space``, ``data`` and ``task`` are used; no image is read.
    form
        Whether for shared weights or for one path.
    seed
        Of the initial weights; PyTorch's generator is afterwards as it was. None: draw them from
        that generator.
    path
        Label to choice: build this path's network only. Its labels are not checked.

    Raises
    ------
    RecipeError, DataError
        See `nni_spos.spaces.build_space` and `nni_spos.data.dataset_spec`.
    """
    spec, task = _spec_and_task(recipe)
    with _seeded(seed):
        return build_space(
            recipe.space.name,
            recipe.space.arguments,
            form,
            num_classes=spec.num_classes,
            in_channels=spec.channels,
            input_size=spec.image_size,
            task_arguments=task.space_arguments(spec),
            path=path,
            folder=recipe.file.parent,
        )


def build_recipe_costs(recipe: Recipe) -> tuple[PathSpace, Costs]:
    """Return all cost tables of a recipe's space: analytic ones, and measured latencies.

    Raises the errors of `build_analytic_costs` and `nni_spos.latency.recipe_tables.load_latencies`.
    """
    space, costs = build_analytic_costs(recipe)
    return space, {**costs, **load_latencies(recipe, space, costs.get("flops"))}


def build_analytic_costs(recipe: Recipe) -> tuple[PathSpace, Costs]:
    """Build the analytic cost tables of a recipe's space for one of the recipe's images.

    Raises the errors of `build_recipe_space`, and for a space that cannot be counted, does not run
    or has too few outputs CostError and the like.
    """
    spec, task = _spec_and_task(recipe)
    metrics = build_metrics(recipe.metrics, recipe.file.parent)
    model = build_recipe_space(recipe, Form.SUBNET)
    try:
        costs = build_costs(model, spec.input_shape, metrics)
        _check_outputs(model, spec, task)
    except Exception as problem:
        if recipe.space.name in SPACES.ours and not metrics:
            raise
        reason = explain(problem, recipe.file.parent)
        if isinstance(problem, SposError):
            raise type(problem)(reason) from problem
        raise CostError(f"space {recipe.space.name}: does not run: {reason}") from problem
    return PathSpace.from_model_space(model), costs


def _spec_and_task(recipe: Recipe) -> tuple[DatasetSpec, Task]:
    """Return what is known of the images, and the task, if it is for them.

    Raises
    ------
    RecipeError, DataError
        It is not, see `nni_spos.tasks.base.Task.check_data`.
    """
    spec, task = dataset_spec(recipe.data), find_task(recipe.task)
    task.check_data(recipe.task.name, spec)
    return spec, task


def _check_outputs(model: ModelSpace, spec: DatasetSpec, task: Task) -> None:
    """Refuse a space that does not return what the task needs. Raises SpaceError."""
    for outputs in run_dry(lambda device: copy_network(model, device).eval(), spec.input_shape):
        task.check_outputs(outputs, 1, spec)


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield
