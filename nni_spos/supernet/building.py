"""The space of a recipe as a model, with the classes, channels and size of the recipe's images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from nni_spos.cost_table import Costs
from nni_spos.data import DatasetSpec, ImageData, check_preprocessing, dataset_spec
from nni_spos.errors import CheckpointError, CostError, SpaceError, SposError, StaleWarning
from nni_spos.identity import Result, describe
from nni_spos.path import Choice, PathSpace
from nni_spos.profilers import build_costs
from nni_spos.profilers.copying import copy_network
from nni_spos.profilers.dry_run import run_dry
from nni_spos.recipe import Recipe
from nni_spos.recipe_latency import load_latencies
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.spaces.registry import explain
from nni_spos.supernet.checkpoint import SupernetCheckpoint, restore_supernet
from nni_spos.supernet.strategy import SinglePathOneShot
from nni_spos.values import changes


def build_recipe_supernet(recipe: Recipe, seed: int | None = None) -> ModelSpace:
    """Build the supernet of a recipe: its space, with the weights that paths share.

    The parameters and errors are those of `build_recipe_space`.
    """
    with _seeded(seed):
        return SinglePathOneShot().mutate_model(build_recipe_space(recipe, Form.SUPERNET))


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
        Its sections ``space`` and ``data`` are used; no image is read.
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
    spec = dataset_spec(recipe.data)
    with _seeded(seed):
        return build_space(
            recipe.space.name,
            recipe.space.arguments,
            form,
            num_classes=spec.num_classes,
            in_channels=spec.channels,
            input_size=spec.image_size,
            path=path,
            folder=recipe.file.parent,
        )


def build_recipe_costs(recipe: Recipe) -> tuple[PathSpace, Costs]:
    """Return all cost tables of a recipe's space: analytic ones, and measured latencies.

    Raises the errors of `build_analytic_costs` and `nni_spos.recipe_latency.load_latencies`.
    """
    space, costs = build_analytic_costs(recipe)
    return space, {**costs, **load_latencies(recipe, space, costs.get("flops"))}


def build_analytic_costs(recipe: Recipe) -> tuple[PathSpace, Costs]:
    """Build the analytic cost tables of a recipe's space for one of the recipe's images.

    Raises the errors of `build_recipe_space`, and for a space that cannot be counted, does not run
    or has too few outputs CostError and the like.
    """
    spec = dataset_spec(recipe.data)
    model = build_recipe_space(recipe, Form.SUBNET)
    try:
        costs = build_costs(model, spec.input_shape)
        _check_outputs(model, spec)
    except Exception as problem:
        if recipe.space.name in SPACES:
            raise
        reason = explain(problem, recipe.file.parent)
        if isinstance(problem, SposError):
            raise type(problem)(reason) from problem
        raise CostError(f"space {recipe.space.name}: does not run: {reason}") from problem
    return PathSpace.from_model_space(model), costs


def _check_outputs(model: ModelSpace, spec: DatasetSpec) -> None:
    """Refuse a space that does not return a logit for every class. Raises SpaceError."""
    for outputs in run_dry(lambda device: copy_network(model, device).eval(), spec.input_shape):
        if not isinstance(outputs, Tensor):
            found = f"a {type(outputs).__name__}"
        elif outputs.ndim != 2 or len(outputs) != 1 or outputs.shape[1] < spec.num_classes:
            found = f"a tensor of shape {tuple(outputs.shape)}"
        else:
            continue
        raise SpaceError(
            f"the space returns {found} for one image of the data. It must return one logit for "
            f"every class, shape (1, {spec.num_classes}); take their number as the argument "
            "num_classes."
        )


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield
