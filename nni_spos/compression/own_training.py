"""Trainings with loaders of one's own: what they are told, and the evaluators that do them."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from nni.nas.evaluator.pytorch import Lightning, LightningModule, Trainer
from torch import Tensor, nn

from nni_spos.errors import DataError, EvaluatorError, RecipeError
from nni_spos.recipe.conversion_settings import (
    BY_BATCHES,
    RETRAIN_DEFAULTS,
    SUPERNET_DEFAULTS,
    ChoiceSettings,
)
from nni_spos.recipe.settings import read_settings
from nni_spos.recipe.techniques import NOWHERE
from nni_spos.recipe.training_settings import (
    RetrainSettings,
    SupernetSettings,
    TrainSettings,
    read_training,
)
from nni_spos.tasks.base import LOSS, Task
from nni_spos.tasks.classification import Classification
from nni_spos.training import TaskModule
from nni_spos.training.callbacks import SeededSteps, TrainingProgress, num_examples
from nni_spos.training.evaluator import common_options
from nni_spos.training.quiet import quiet

CALIBRATION_IMAGES = 512
"""Whose loss says which channels matter, for ``importance: taylor``."""

OF_RECIPES = {
    "batch_size": "it is that of your loader",
    "devices": "this is one process",
    "initial_weights": "they are those of the network",
    "keep_checkpoints": "nothing is written to the disk",
    "num_nodes": "this is one process",
    "progressive_resizing": "your loader makes the images",
    "strategy": "this is one process",
    "sync_batchnorm": "this is one process",
    "techniques": "they need the images of a recipe",
}
"""Keys of a recipe's trainings that are of no use here, and why."""

OF_MODULES = (
    "channels_last",
    "label_smoothing",
    "learning_rate",
    "learning_rate_factors",
    "momentum",
    "update_scope",
    "warmup_steps",
    "weight_decay",
)
"""Keys that a module of one's own decides."""


class Classifier(TaskModule):
    """Trains a classification as a recipe does, and logs its figures when it validates."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        outputs = self(images).float()
        sums = self.task.tally(outputs, labels).tolist()
        found = dict(self.task.conclude(sums, len(labels)))
        found[LOSS.name] = float(self.task.total_loss(outputs, labels)) / len(labels)
        self.log_dict(found, batch_size=len(labels))


def task_of(module: LightningModule | None) -> Task | None:
    """Return the task of a training; None: only a module of one's own knows it."""
    return Classification() if module is None else None


@dataclass(frozen=True)
class Trainings:
    """How the supernet is trained, and the best path.

    Parameters
    ----------
    supernet
        Of the supernet.
    finetune
        Of the best path; None: it stays as the supernet has it.
    """

    supernet: SupernetSettings
    finetune: RetrainSettings | None


def read_trainings(
    supernet: Mapping[str, Any],
    retrain: Mapping[str, Any] | None,
    seed: int,
    module: LightningModule | None,
) -> Trainings:
    """Check what the user wrote, with the defaults of a network that is converted.

    Raises
    ------
    RecipeError
        A key or a value is not allowed, or means nothing with loaders, or a module, of one's own.
    """
    before = _read(SupernetSettings, supernet, {**SUPERNET_DEFAULTS, "seed": seed}, module)
    if retrain is None:
        return Trainings(before, RetrainSettings.like(before))
    if isinstance(retrain, Mapping) and retrain.get("epochs") == 0:
        return Trainings(before, None)
    return Trainings(
        before, _read(RetrainSettings, retrain, {**RETRAIN_DEFAULTS, "seed": seed}, module)
    )


def _read(
    cls: type[Any], given: Any, defaults: Mapping[str, Any], module: LightningModule | None
) -> Any:
    where = f"compress: {cls.section}"
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where}: must be a mapping such as {{'epochs': 10}}, got {given!r}.")
    for key in given:
        if key in OF_RECIPES:
            raise RecipeError(f"{where}: leave out {key!r}: {OF_RECIPES[key]}.")
        if module is not None and key in OF_MODULES:
            raise RecipeError(
                f"{where}: leave out {key!r}: {type(module).__name__} decides it, in its "
                "training_step or configure_optimizers."
            )
    settings = read_training(cls, {**defaults, **given}, where, FilePath(), NOWHERE)
    if settings.techniques:
        asked = settings.techniques[0]
        name = next(iter(asked.arguments), asked.name)
        raise RecipeError(f"{where}: leave out {name!r}: {OF_RECIPES['techniques']}.")
    return settings


@dataclass(frozen=True)
class FirstBatch:
    """What is known of the batches of a loader.

    Parameters
    ----------
    images
        Of shape (N, C, H, W), on the device of the network.
    size
        How many examples a batch has.
    """

    images: Tensor
    size: int


def look_at_loaders(
    network: nn.Module,
    loaders: Mapping[str, Iterable[Any] | None],
    example_inputs: Tensor | None,
    module: LightningModule | None,
) -> FirstBatch:
    """Look at the first batch of each loader, the one for training first.

    Parameters
    ----------
    network
        Which the images are for.
    loaders
        By name of the argument.
    example_inputs, module
        See `nni_spos.compress`.

    Raises
    ------
    DataError
        A loader is empty, can be gone through only once, or its batches are not what is needed.
    EvaluatorError
        The module is not of NNI's class.
    """
    if module is not None and not isinstance(module, LightningModule):
        raise EvaluatorError(
            f"compress: module: a {type(module).__name__} cannot take the network. Derive it from "
            "nni.nas.evaluator.pytorch.LightningModule, whose 'self.model' is the network."
        )
    firsts = {name: _first(name, x) for name, x in loaders.items() if x is not None}
    if module is None:
        for name, batch in firsts.items():
            _check_classes(name, batch)
    batch = next(iter(firsts.values()))
    images = example_inputs
    if images is None:
        images = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(images, Tensor) or images.dim() != 4:
        raise DataError(
            "compress: example_inputs: must be images, a tensor of shape (N, C, H, W), got "
            f"{_shape(images)}."
        )
    device = next((x.device for x in network.parameters()), images.device)
    return FirstBatch(images.to(device), num_examples(batch) or len(images))


def calibration_of(
    choices: Mapping[str, Any] | ChoiceSettings | None,
    train_loader: Iterable[Any],
    first: FirstBatch,
    module: LightningModule | None,
) -> list[tuple[Tensor, Tensor]] | None:
    """Return the batches that channels are sorted by, None if these are not asked for.

    Parameters
    ----------
    choices
        See `nni_spos.convert`.
    train_loader
        Its first batches are taken, of `CALIBRATION_IMAGES` images.
    first
        The first of them.
    module
        See `nni_spos.compress`.

    Raises
    ------
    RecipeError
        A choice is not allowed, or there is a module, which alone knows the loss.
    """
    if not isinstance(choices, ChoiceSettings):
        choices = read_settings(ChoiceSettings, choices, "choices")
    if choices.importance != BY_BATCHES:
        return None
    if module is not None:
        raise RecipeError(
            "compress: choices.importance: taylor needs the loss, which only "
            f"{type(module).__name__} knows. Use l2 or batchnorm."
        )
    device = first.images.device
    batches = itertools.islice(train_loader, math.ceil(CALIBRATION_IMAGES / first.size))
    return [(images.to(device), classes.to(device)) for images, classes in batches]


def _first(name: str, loader: Any) -> Any:
    try:
        iterator = iter(loader)
    except TypeError:
        raise DataError(
            f"compress: {name}: a {type(loader).__name__} is no loader. Give a DataLoader."
        ) from None
    if iterator is loader:
        raise DataError(
            f"compress: {name}: a {type(loader).__name__} can be gone through only once. Give a "
            "DataLoader or a list of batches."
        )
    for batch in iterator:
        return batch
    raise DataError(f"compress: {name}: has no batches.")


def _check_classes(name: str, batch: Any) -> None:
    """Refuse batches that are not of a classification. Raises DataError."""
    is_pair = isinstance(batch, list | tuple) and len(batch) == 2
    if is_pair and all(isinstance(x, Tensor) for x in batch):
        images, classes = batch
        has_classes = classes.dtype is torch.int64 and classes.shape == images.shape[:1]
        if images.dim() == 4 and has_classes:
            return
    found = ", ".join(map(_shape, batch)) if is_pair else _shape(batch)
    raise DataError(
        f"compress: {name}: a batch must be (images, classes), a tensor of shape (N, C, H, W) and "
        f"one of whole numbers, shape (N,); got {found}. For other batches give 'module', a "
        "Lightning module of yours."
    )


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} and shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def evaluator_of(
    settings: TrainSettings,
    module: LightningModule | None,
    train_loader: Iterable[Any],
    validation_loader: Iterable[Any],
    title: str | None = None,
) -> Lightning:
    """Return an evaluator of NNI with loaders of one's own.

    Parameters
    ----------
    settings
        Of the training.
    module
        It is copied; None: a classification.
    train_loader, validation_loader
        The second is not used by a training.
    title
        Of the progress bar; None: there is none.
    """
    callbacks: list[Any] = [SeededSteps(settings.seed)]
    if title is not None:
        callbacks.append(TrainingProgress(title, task_of(module)))
    with quiet(), warnings.catch_warnings():
        # NNI's, of a loader that it could not send to another process.
        warnings.filterwarnings("ignore", "When using training service", RuntimeWarning)
        trainer = Trainer(
            devices=1,
            logger=False,
            callbacks=callbacks,
            enable_checkpointing=False,
            **common_options(settings),
        )
        own = Classifier(settings) if module is None else copy.deepcopy(module)
        return Lightning(own, trainer, train_loader, validation_loader)
