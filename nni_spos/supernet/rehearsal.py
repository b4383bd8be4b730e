"""Run what a recipe's training, search and retraining will run, once, on a few generated images.

A space's own code can fail where nothing else looks: in training mode only, with a batch of one
image, on one path. Hours later it would do so in the middle of a training, or behind it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.components import explain
from nni_spos.data import DatasetSpec, ImageData, dataset_spec
from nni_spos.data.generated import GeneratedData
from nni_spos.display.announcement import announce
from nni_spos.errors import RehearsalError, ScoringWarning
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.memory_format import kept_generators, seed_generators
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.task import find_task
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths, score
from nni_spos.scoring.scoring_format import note_format
from nni_spos.spaces import Form
from nni_spos.supernet.building import build_recipe_space, build_recipe_supernet
from nni_spos.supernet.faithfulness import find_difference
from nni_spos.supernet.trainee import Trainee, choose_device
from nni_spos.tasks.base import Task
from nni_spos.training.layout import find_layout

FEW = 2
"""Images of a batch, unless real batches have fewer or a network needs more."""
MOST_VALUES = 2**23
"""Pixels of a batch at most: 174 images of ImageNet's size."""
SHOWN = 200
"""Characters of a path in a message."""


@dataclass(frozen=True)
class BatchSizes:
    """Numbers of images.

    Parameters
    ----------
    training
        In a batch of a training, of one process.
    scoring, last
        In a batch of a scoring; in one more batch at its end, if that has a single image.
    recalibration
        In a batch of the recalibration.
    """

    training: int
    scoring: int
    last: int
    recalibration: int

    def at_most(self, number: int) -> BatchSizes:
        """Return smaller sizes."""
        sizes = (self.training, self.scoring, self.last, self.recalibration)
        return BatchSizes(*(min(size, number) for size in sizes))


@dataclass(frozen=True)
class Rehearsal:
    """What the steps work on.

    Parameters
    ----------
    recipe
        Its supernet is trained, searched, and its paths are retrained.
    spec
        Of its data.
    task
        What is predicted.
    supernet
        In the memory format of the training, on the device; no step changes its weights.
    layout
        That memory format.
    paths
        Every choice is on one of them.
    sizes
        As the recipe has them.
    """

    recipe: Recipe
    spec: DatasetSpec
    task: Task
    supernet: ModelSpace
    layout: torch.memory_format
    paths: list[Path]
    sizes: BatchSizes

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return choose_device()


def rehearse(recipe: Recipe, data: ImageData | None = None) -> torch.memory_format:
    """Train, score and retrain a few paths for a step each, as the recipe says.

    The supernet is one of its own. No image is read, and global random generators stay as they
    are.

    Parameters
    ----------
    recipe
        Its sections space, data, supernet, evaluation and retrain are used.
    data
        Tells how many images there are; None: what is not in the recipe is taken to be enough.

    Returns
    -------
    The memory format in which the supernet can be trained.

    Warns
    -----
    FormatWarning
        It is not the one that the recipe asks for.

    Raises
    ------
    RehearsalError
        The code of the space fails; the message names path, step and reason.
    """
    announce("rehearsing a step of training, scoring and retraining")
    spec, device = dataset_spec(recipe.data), choose_device()
    task = find_task(recipe.task)
    with kept_generators(device), _without_notes():
        seed_generators(recipe.supernet.seed, device)
        supernet = build_recipe_supernet(recipe, recipe.supernet.seed).to(device)
        paths = PathSpace.from_model_space(supernet).covering()
        wanted, shape = recipe.supernet.channels_last, spec.input_shape
        layout = find_layout(supernet, wanted, device, shape, _at_paths(supernet, paths))
        supernet.to(memory_format=layout)
        sizes = _real_sizes(recipe, recipe.supernet, data)
        rehearsal = Rehearsal(recipe, spec, task, supernet, layout, paths, sizes)
        for step in STEPS:
            step(rehearsal)
    return layout


def rehearse_retraining(recipe: Recipe, path: Path, data: ImageData) -> torch.memory_format:
    """Train and score the network of one path for a step, as a retraining does.

    Parameters
    ----------
    recipe, data
        As for `rehearse`.
    path
        Label to choice.

    Returns, warns and raises as `rehearse` does.
    """
    announce("rehearsing a step of retraining")
    device = choose_device()
    with kept_generators(device), _without_notes():
        seed_generators(recipe.retrain.seed, device)
        network = build_recipe_space(recipe, Form.SUBNET, recipe.retrain.seed, path)
        sizes = _real_sizes(recipe, recipe.retrain, data)
        return _retrain_once(recipe, data.spec, path, network.to(device), sizes)


def rehearse_training(rehearsal: Rehearsal) -> None:
    """Do a training step of the supernet on every path, at every size of the images."""
    settings, layout = rehearsal.recipe.supernet, rehearsal.layout
    trainee = Trainee(rehearsal.supernet, settings, layout, rehearsal.spec, rehearsal.task)
    for path, _ in zip(
        rehearsal.paths, _at_paths(rehearsal.supernet, rehearsal.paths), strict=True
    ):
        _perform(
            rehearsal.recipe,
            f"a training step of the supernet on the path {_shown(path)}",
            "give supernet.batch_size 2 or more, for each of its devices",
            lambda sizes: trainee.train(sizes.training),
            rehearsal.sizes,
            rehearsal.spec,
        )


def rehearse_scoring(rehearsal: Rehearsal) -> None:
    """Score all paths together, and some of them alone."""
    recipe, paths = rehearsal.recipe, rehearsal.paths
    supernet = _restored(rehearsal)

    def run(chosen: list[Path], sizes: BatchSizes) -> None:
        num_scored = sizes.scoring + sizes.last
        data = GeneratedData(rehearsal.spec, sizes.recalibration, num_scored, rehearsal.task)
        settings = replace(
            recipe.evaluation,
            batch_size=sizes.scoring,
            recalibration_images=sizes.recalibration,
        )
        wanted = recipe.supernet.channels_last
        for path in chosen[:: max(1, len(chosen) - 1)]:
            evaluate_path(supernet, path, data, settings, wanted)
        evaluate_paths(supernet, chosen, data, settings, wanted)

    if rehearsal.sizes.last and rehearsal.sizes.recalibration > 1:
        advice = "give another data.num_validation, since the last batch has a single image"
    else:
        advice = "give evaluation.recalibration_images and evaluation.batch_size 2 or more"
    sizes, spec = rehearsal.sizes, rehearsal.spec
    what = f"scoring {len(paths)} paths together"
    try:
        _perform(recipe, what, advice, functools.partial(run, paths), sizes, spec)
    except RehearsalError:
        for path in paths:  # one of them may be the reason
            what = f"scoring the path {_shown(path)}"
            _perform(recipe, what, advice, functools.partial(run, [path]), sizes, spec)
        raise


def rehearse_retrainings(rehearsal: Rehearsal) -> None:
    """Train the networks of two paths for a step, and score them.

    Every path is rehearsed again where its retraining begins.
    """
    recipe, settings = rehearsal.recipe, rehearsal.recipe.retrain
    for path in rehearsal.paths[:: max(1, len(rehearsal.paths) - 1)]:
        network = build_recipe_space(recipe, Form.SUBNET, settings.seed, path)
        network.to(rehearsal.device)
        if settings.initial_weights == "supernet":
            weights = extract_subnet(rehearsal.supernet, path).state_dict()
            network.load_state_dict(weights, strict=False)
        sizes = replace(rehearsal.sizes, training=_real_sizes(recipe, settings, None).training)
        _retrain_once(recipe, rehearsal.spec, path, network, sizes)


def _restored(rehearsal: Rehearsal) -> ModelSpace:
    """Return the supernet as a search has it: built anew, and no path was ever set in it."""
    supernet = build_recipe_supernet(rehearsal.recipe, rehearsal.recipe.supernet.seed)
    supernet.load_state_dict(rehearsal.supernet.state_dict())
    supernet.to(rehearsal.device, memory_format=rehearsal.layout)
    if rehearsal.layout is torch.channels_last:  # scores were looked at as well
        note_format(supernet, rehearsal.spec.input_shape, True)
    return supernet


def _at_paths(supernet: ModelSpace, paths: list[Path]) -> Iterator[nn.Module]:
    """Yield a supernet with one path set after another."""
    units = choice_units(supernet)
    for path in paths:
        set_path(units, path)
        yield supernet


def compare_with_networks(rehearsal: Rehearsal) -> None:
    """Refuse a supernet that on a path is not the network that would be retrained."""
    recipe, spec, layout = rehearsal.recipe, rehearsal.spec, rehearsal.layout
    found: dict[str, str] = {}

    def run(path: Path, sizes: BatchSizes) -> None:
        images, _ = GeneratedData(spec, sizes.training, 0).train_batch()
        network = build_recipe_space(recipe, Form.SUPERNET, recipe.supernet.seed, path)
        network.to(rehearsal.device, memory_format=layout)
        images = images.to(rehearsal.device, memory_format=layout)
        found["difference"] = find_difference(rehearsal.supernet, path, network, images)

    space = PathSpace.from_model_space(rehearsal.supernet)
    drawn = np.random.default_rng(0).integers(space.num_choices)  # labels that are not in step
    for path in [*rehearsal.paths, *space.decode([drawn])]:
        _perform(
            recipe,
            f"comparing the supernet with the network of the path {_shown(path)}",
            "give supernet.batch_size 2 or more, for each of its devices",
            functools.partial(run, path),
            rehearsal.sizes,
            spec,
        )
        if found["difference"]:
            raise RehearsalError(
                f"space {recipe.space.name}: on the path {_shown(path)} the supernet is not the "
                f"network that would be retrained: {found['difference']}."
            )


STEPS: tuple[Callable[[Rehearsal], None], ...] = (
    rehearse_training,
    compare_with_networks,
    rehearse_scoring,
    rehearse_retrainings,
)
"""What is rehearsed, in this order. What else should be seen of a supernet before it is trained
goes here."""


def _retrain_once(
    recipe: Recipe, spec: DatasetSpec, path: Path, network: nn.Module, sizes: BatchSizes
) -> torch.memory_format:
    settings = recipe.retrain
    wanted, shape = settings.channels_last, spec.input_shape
    layout = find_layout(network, wanted, choose_device(), shape, [network])
    if layout is torch.channels_last:
        note_format(network, shape, True)
    task = find_task(recipe.task)
    trainee = Trainee(network.to(memory_format=layout), settings, layout, spec, task)

    def run(sizes: BatchSizes) -> None:
        trainee.train(sizes.training)
        data = GeneratedData(spec, 0, sizes.scoring, task)
        batches = data.validation_batches(sizes.scoring)
        score(network, batches, settings.channels_last, task)

    what = f"a step of retraining the path {_shown(path)}"
    _perform(
        recipe, what, "give retrain.batch_size 2 or more, for each of its devices", run, sizes, spec
    )
    return layout


def _perform(
    recipe: Recipe,
    what: str,
    advice: str,
    run: Callable[[BatchSizes], None],
    sizes: BatchSizes,
    spec: DatasetSpec,
) -> None:
    """Run a step with few images, and if that fails with as many as there will be."""
    most = max(FEW, MOST_VALUES // math.prod(spec.input_shape))
    small, real = sizes.at_most(FEW), sizes.at_most(most)
    try:
        run(small)
    except Exception as problem:
        if real != small and _runs(run, real):
            return
        reason = explain(problem, recipe.file.parent).rstrip(".")
        # A batch of one image is what most code fails with, and the recipe can change that.
        two = BatchSizes(
            *(max(2, x) for x in (small.training, small.scoring, 0, small.recalibration))
        )
        hint = ""
        if two != small and _runs(run, two):
            hint = f" It runs with two images: {advice}."
        raise RehearsalError(
            f"space {recipe.space.name}: {what} fails: {reason}.{hint}"
        ) from problem


def _runs(run: Callable[[BatchSizes], None], sizes: BatchSizes) -> bool:
    try:
        run(sizes)
    except Exception:
        return False
    return True


def _real_sizes(recipe: Recipe, settings: TrainSettings, data: ImageData | None) -> BatchSizes:
    """Return how many images the batches of a recipe have."""
    num_train = data.num_train if data is not None else recipe.data.num_train
    num_validation = data.num_validation if data is not None else recipe.data.num_validation
    num_processes = settings.num_nodes * (
        1 if settings.devices == "auto" else int(settings.devices)
    )
    batch_size = min(settings.batch_size, num_train or settings.batch_size)
    share = max(1, batch_size // num_processes)
    if settings.sync_batchnorm:
        share = max(share, min(batch_size, FEW))  # BatchNorm sees the images of all processes
    evaluation = recipe.evaluation
    size = evaluation.batch_size
    known = num_validation or size
    return BatchSizes(
        training=share,
        scoring=min(size, known),
        last=int(known > size > 1 == known % size),
        recalibration=min(size, evaluation.recalibration_images, num_train or size),
    )


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Leave it to the search to say why its paths are scored one by one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScoringWarning)
        yield


def _shown(path: Path) -> str:
    text = ", ".join(f"{label}: {choice}" for label, choice in path.items())
    return f"({text if len(text) <= SHOWN else f'{text[:SHOWN]}...'})"
