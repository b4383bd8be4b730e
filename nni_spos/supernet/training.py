"""Train the supernet of a recipe, once."""

from __future__ import annotations

import os
import warnings
from pathlib import Path as FilePath

import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn

from nni_spos.cost_table import Costs
from nni_spos.data import ImageData, open_data
from nni_spos.errors import CheckpointError, InitialWeightsWarning
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.mutables import channel_labels
from nni_spos.mutables.quantization import beginning
from nni_spos.priors import Prior, WarmUpPrior
from nni_spos.priors.building import build_prior
from nni_spos.ranks import check_training, is_first, run_processes
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.output import training_folder
from nni_spos.recipe.recipe import Recipe
from nni_spos.supernet.building import build_recipe_costs, build_recipe_supernet
from nni_spos.supernet.checkpoint import load_supernet, save_supernet
from nni_spos.supernet.initial_weights import begin_with, fit_weights
from nni_spos.supernet.rehearsal import rehearse
from nni_spos.supernet.sampled_costs import SampledCosts
from nni_spos.supernet.strategy import SinglePathOneShot
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
from nni_spos.training.composed import build_techniques
from nni_spos.training.sampling import Sampling


def train_supernet(recipe: Recipe, start: Start | FilePath = Start.NEW) -> FilePath:
    """Train the supernet of a recipe and write it to `recipe.checkpoint`.

    Every epoch leaves a checkpoint in the folder ``supernet`` beside it, with TensorBoard's logs.

    Parameters
    ----------
    recipe
        Its sections space, data and supernet are used.
    start
        Whether to begin or to go on, or a checkpoint to go on from.

    Returns
    -------
    The file of the trained supernet.

    Raises
    ------
    CheckpointError
        There is a supernet already, nothing to resume, a checkpoint of other settings, another
        process that trains, or a file to begin with that does not fit.
    RehearsalError
        See `nni_spos.supernet.rehearsal.rehearse`; nothing is written.
    DataError, RecipeError, ProcessError
        See `nni_spos.data.open_data`, `nni_spos.spaces.build_space` and
        `nni_spos.ranks.run_processes`.
    """
    data = open_data(recipe.data, task=recipe.task, measured=recipe.files.normalisation)
    prepared = _prepare(recipe, data)
    with exclusive(_folder(recipe), timeout=0):
        if start is Start.CONTINUE and is_written(recipe.checkpoint):
            made_for = load_supernet(recipe.checkpoint).made_for
            check_finished(recipe.checkpoint, made_for, describe(Result.SUPERNET, recipe))
            return recipe.checkpoint
        return _train(recipe, data, *prepared, start)


def ensure_supernet(recipe: Recipe) -> FilePath:
    """Train the supernet unless it is there; processes that call this together train it once.

    The others wait. If the one that trains is killed, the next goes on from its last checkpoint.
    Raises the errors of `train_supernet`.
    """
    if not recipe.checkpoint.exists():
        with exclusive(_folder(recipe), timeout=-1):
            if not recipe.checkpoint.exists():
                measured = recipe.files.normalisation
                data = open_data(recipe.data, task=recipe.task, measured=measured)
                _train(recipe, data, *_prepare(recipe, data), Start.CONTINUE)
    return recipe.checkpoint


def _prepare(recipe: Recipe, data: ImageData) -> tuple[Prior, Costs, torch.memory_format]:
    """Refuse what cannot be trained, before anything is written or deleted."""
    space, costs = build_recipe_costs(recipe)
    prior = build_prior(recipe.supernet, space, costs)
    check_training(recipe.supernet, data.spec.image_size)
    data.check_batch_size(recipe.supernet.batch_size, "supernet")
    techniques = build_techniques(recipe.supernet, data.spec, data.task)
    techniques.prior(Sampling(prior, costs, num_steps=1))  # limits that no path keeps are refused
    return prior, costs, rehearse(recipe, data)


def _train(
    recipe: Recipe,
    data: ImageData,
    prior: Prior,
    costs: Costs,
    layout: torch.memory_format,
    start: Start | FilePath,
) -> FilePath:
    _check_initial_weights(recipe)
    resume = prepare_start(start, _folder(recipe), recipe.checkpoint)
    run_processes(recipe.supernet, _fit, recipe, data, prior, costs, layout, resume)
    return recipe.checkpoint


def _fit(
    recipe: Recipe,
    data: ImageData,
    prior: Prior,
    costs: Costs,
    layout: torch.memory_format,
    resume: FilePath | None,
) -> None:
    """Train, as one of the processes of a training."""
    settings = recipe.supernet
    supernet = build_recipe_supernet(recipe, settings.seed)
    if settings.initial_file is not None:
        begin_with(supernet, settings.initial_file)
    if settings.channel_warmup_steps:
        prior = WarmUpPrior(prior, channel_labels(supernet), settings.channel_warmup_steps)
    meter = TrainingCost()
    made_for = describe(Result.SUPERNET, recipe)
    if settings.epochs == 0:
        if is_first():
            images, _ = next(iter(data.train_loader(settings.batch_size, seed=0)))
            begin_quantizing(supernet, costs, images)
            save_supernet(recipe.checkpoint, supernet, data.preprocessing, None, made_for)
        return
    evaluator = build_evaluator(
        settings,
        data,
        _folder(recipe),
        title="supernet",
        identity={
            **made_for,
            "choices": prior.space.to_search_space(),
            "preprocessing": data.preprocessing,
            "tensors": tensor_shapes(supernet),
        },
        resume=resume,
        callbacks=[SampledCosts(costs), meter],
        layout=layout,
    )
    strategy = SinglePathOneShot(prior, costs=costs)
    multiply_adds, _ = costs["flops"].dearest()
    with training_session(), threads_for(multiply_adds, settings.batch_size):
        strategy(RawFormatModelSpace.from_model(supernet, evaluator), SequentialExecutionEngine())
    if is_first():
        save_supernet(recipe.checkpoint, supernet, data.preprocessing, meter.cost, made_for)


def _check_initial_weights(recipe: Recipe) -> None:
    """Refuse a file to begin with that does not fit; say in one line what of it does not.

    Raises CheckpointError, before anything is written or deleted.
    """
    file = recipe.supernet.initial_file
    if file is None:
        return
    if os.path.realpath(file) == os.path.realpath(recipe.checkpoint):
        raise CheckpointError(
            f"{file}: is the file that this training writes, and cannot be what it begins with. "
            "Name a copy of it, or give the recipe another output folder."
        )
    fit = fit_weights(build_recipe_supernet(recipe, recipe.supernet.seed), file)
    if line := fit.describe():
        warnings.warn(line, InitialWeightsWarning, stacklevel=2)


def begin_quantizing(supernet: nn.Module, costs: Costs, images: Tensor) -> None:
    """Let quantized layers begin with images, as in the training that there is not."""
    _, path = costs["flops"].dearest()
    set_path(choice_units(supernet), path)
    supernet.eval()
    with beginning(supernet), torch.no_grad():
        supernet(images)
    supernet.train()


def _folder(recipe: Recipe) -> FilePath:
    return training_folder(recipe.checkpoint)
