"""Batches of images for training, recalibration, validation and the final test."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
from torch import Tensor

from nni_spos.data.datasets import (
    DatasetSpec,
    dataset_spec,
    open_test_set,
    open_training_set,
    open_validation_set,
)
from nni_spos.data.evaluation import EvaluationBatches
from nni_spos.data.held import ImageHolder
from nni_spos.data.measuring import measured_spec
from nni_spos.data.reading import ImageSplit
from nni_spos.data.splits import (
    Groups,
    Splits,
    Strata,
    check_groups_apart,
    split_training_set,
    strata_of,
)
from nni_spos.data.stores import ImageStore, ImageTensor, VariedStore
from nni_spos.data.training_batches import EpochSampler, Order, TrainBatches
from nni_spos.data.transforms import ImageAugmentation, ImageTransform, describe_preprocessing
from nni_spos.errors import DataError
from nni_spos.recipe.data_settings import FROM_DATA, DataSettings
from nni_spos.recipe.dataset import find_dataset
from nni_spos.recipe.task import OF_TARGETS, TaskSettings, find_task
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.tasks.base import Task

SHUFFLE_SEED = 0
"""Of the order in which validation images stand for all, which must never change."""


class ImageData:
    """The three splits of a data set; made by `open_data`.

    Only `test_batches` opens the test set.

    Parameters
    ----------
    settings, folder, task, measured
        See `open_data`.

    Raises
    ------
    DataError
        See `open_data`.
    """

    def __init__(
        self,
        settings: DataSettings,
        folder: FilePath | None = None,
        task: TaskSettings | None = None,
        measured: FilePath | None = None,
    ):
        self.spec: DatasetSpec = dataset_spec(settings)
        task = task or TaskSettings(OF_TARGETS[self.spec.target])
        self.task: Task = find_task(task)
        self.task.check_data(task.name, self.spec)
        self._opened_with = (settings, folder, task, measured)
        self._settings = settings
        self._store = open_training_set(settings, self.spec)
        validation = open_validation_set(settings, self.spec)
        try:
            self._splits = self._divided(validation)
        except DataError as problem:
            raise DataError(f"{settings.name}: {problem}") from None
        if settings.normalisation == FROM_DATA:
            training = ImageSplit(self._store, self._splits.train, ImageTransform(self.spec))
            self.spec = measured_spec(self.spec, training, self._evaluation_workers(), measured)
        self._transform = ImageTransform(self.spec)
        self._training = ImageSplit(self._store, self._splits.train, self._transform)
        self._scored = self._store if validation is None else validation
        self._validation = ImageSplit(self._scored, self._splits.validation, self._transform)
        self._shuffled: ImageSplit | None = None
        self._recalibration: tuple[tuple[int, int], ImageSplit] | None = None
        self._test: ImageSplit | None = None
        workers = self._evaluation_workers()
        self._holder = ImageHolder(self.spec, settings.held_mb * 2**20, folder, workers)

    def __repr__(self) -> str:
        spec, (channels, height, width) = self.spec, self.spec.input_shape
        return (
            f"<ImageData {spec.name}: {self.num_train:,} training and {self.num_validation:,} "
            f"validation images, {channels} x {height} x {width}, {spec.num_classes} classes>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process open the same files, instead of sending it their images."""
        return ImageData, self._opened_with

    def _divided(self, validation: ImageStore | None) -> Splits:
        """Divide the training set. Raises DataError."""
        settings = self._settings
        if settings.num_test and find_dataset(settings).has_test_set:
            raise DataError(
                "has a test set of its own; 'num_test' is only for data sets without one."
            )
        strata = self._strata(self._store)
        groups = _groups(self._store)
        own = None
        if validation is not None:
            own = self._strata(validation)
            check_groups_apart(groups, _groups(validation), ("training", "validation"))
        return split_training_set(
            strata,
            settings.num_train,
            settings.num_validation,
            settings.split_seed,
            num_test=settings.num_test,
            groups=groups,
            validation=own,
        )

    def _strata(self, store: ImageStore) -> Strata:
        """Return what splits keep the shares of: what the task says, or by the targets."""
        found = self.task.strata(store.targets)
        if found is not None:
            return np.asarray(found)
        return strata_of(self.spec.target, store.targets, self._settings.num_validation)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return len(self._splits.train)

    @property
    def num_validation(self) -> int:
        """Number of search-validation images."""
        return len(self._splits.validation)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What decides the network's input and which images are held out, as JSON has it.

        The held-out images are in it because a supernet that was trained with another split has
        seen images that the search would validate with.
        """
        return {
            **describe_preprocessing(self.spec),
            "num_validation": self.num_validation,
            "split_seed": self._settings.split_seed,
            **({"num_test": self._settings.num_test} if self._settings.num_test else {}),
        }

    def train_loader(
        self,
        batch_size: int,
        seed: int,
        start_epoch: int = 0,
        *,
        augmentations: Sequence[ImageAugmentation] = (),
        order: Callable[[Any], Order | None] | None = None,
    ) -> TrainBatches:
        """Return augmented training images.

        Order and augmentation are functions of (seed, epoch) and (seed, epoch, image), whatever
        the number of workers and the state of PyTorch's generators, which stay as they are.

        Parameters
        ----------
        batch_size
            Images in a batch, of all ranks together under torch.distributed; a split smaller than
            that is one batch.
        seed
            Seed of order and augmentation.
        start_epoch
            Epoch of the first iteration; Lightning sets its own.
        augmentations
            What is done to images beside the data set's own augmentation.
        order
            Takes the targets of the training images and returns the order of an epoch.
        """
        pixels = self._training_pixels()
        transform = self._transform.extended(augmentations) if augmentations else self._transform
        split = ImageSplit(self._store, self._splits.train, transform, seed, pixels)
        other = order(split.targets().numpy()) if order else None
        sampler = EpochSampler(len(split), batch_size, seed, start_epoch, other)
        return TrainBatches(split, sampler, self._settings.workers)

    def check_batch_size(self, batch_size: int, section: str) -> None:
        """Refuse batches that the training images do not fill: steps would be other ones.

        The default, which is the paper's for ImageNet, is accepted: few images are then one batch.

        Parameters
        ----------
        batch_size
            Images in a batch, of all ranks together.
        section
            Of the recipe, for the message.

        Raises
        ------
        DataError
            There are fewer images than that.
        """
        if self.num_train < batch_size != TrainSettings.batch_size:
            raise DataError(
                f"{self.spec.name}: there are {self.num_train} training images, fewer than a batch "
                f"of {batch_size}. Set 'batch_size' in the recipe's section {section} to at most "
                f"{self.num_train}."
            )

    def recalibration_batches(
        self, num_images: int, batch_size: int, seed: int
    ) -> EvaluationBatches:
        """Return a fixed random part of the training split, prepared as for evaluation.

        Parameters
        ----------
        num_images
            How many; all of them if there are fewer.
        batch_size
            Images in a batch; the last one may be smaller.
        seed
            Decides which images, in which order.
        """
        key = (num_images, seed)
        if self._recalibration is None or self._recalibration[0] != key:
            order = np.random.default_rng(seed).permutation(self._splits.train)
            split = ImageSplit(self._store, order[:num_images], self._transform)
            self._recalibration = key, split
        made_from = {"num_images": num_images, "seed": seed}
        return self._held_batches("recalibration", self._recalibration[1], batch_size, made_from)

    def validation_batches(self, batch_size: int) -> EvaluationBatches:
        """Return the images that the search scores paths with."""
        return self._held_batches("validation", self._validation, batch_size, {})

    def shuffled_validation_batches(self, batch_size: int) -> EvaluationBatches:
        """Return the same images in a random order, always the same one: some stand for all."""
        if self._shuffled is None:
            order = np.random.default_rng(SHUFFLE_SEED).permutation(self._splits.validation)
            self._shuffled = ImageSplit(self._scored, order, self._transform)
        made_from = {"shuffled": SHUFFLE_SEED}
        return self._held_batches("validation_shuffled", self._shuffled, batch_size, made_from)

    def test_batches(self, batch_size: int) -> EvaluationBatches:
        """Return the test images, for the last line of a retraining. Raises DataError.

        They are looked at once, so they are not held.
        """
        split, workers = self._test_split(), self._evaluation_workers()
        return EvaluationBatches(self.spec, split, batch_size, workers)

    def spread_batches(self, split: str, num_images: int, batch_size: int) -> EvaluationBatches:
        """Return some images of a split, evenly spread over it, so that all classes are there.

        Parameters
        ----------
        split
            ``validation`` or ``test``.
        num_images
            How many; all of them if there are fewer.
        batch_size
            Images in a batch; the last one may be smaller.
        """
        chosen = self._validation if split == "validation" else self._test_split()
        workers = self._evaluation_workers()
        return EvaluationBatches(self.spec, chosen.spread(num_images), batch_size, workers)

    def _test_split(self) -> ImageSplit:
        if self._test is None:
            store, positions = self._store, self._splits.test
            if positions is None:
                store = open_test_set(self._settings, self.spec)
                check_groups_apart(_groups(self._store), _groups(store), ("training", "test"))
                positions = np.arange(len(store.targets))
            self._test = ImageSplit(store, positions, self._transform)
        return self._test

    def _held_batches(
        self, name: str, split: ImageSplit, batch_size: int, made_from: Mapping[str, Any]
    ) -> EvaluationBatches:
        made_from = {**self.preprocessing, "split": name, **made_from}
        hold = functools.partial(self._holder.hold, name, split, made_from)
        workers = self._evaluation_workers()
        return EvaluationBatches(self.spec, split, batch_size, workers, hold)

    def _training_pixels(self) -> Tensor | None:
        """Hold the training images as they are before augmentation, where that saves work."""
        if self._training.has_masks:
            return None
        if self.spec.augmentation == "imagenet" or self.spec.native_size == self.spec.image_size:
            return None
        if isinstance(self._store, VariedStore):
            return None
        held = self._holder.hold_in_memory("training", self._training)
        return held.pixels if held else None

    def _evaluation_workers(self) -> int:
        """Only files are worth the processes: without augmentation there is else nothing to do."""
        return 0 if isinstance(self._store, ImageTensor) else self._settings.workers


def _groups(store: ImageStore) -> Groups | None:
    return getattr(store, "groups", None)


def open_data(
    settings: DataSettings,
    folder: FilePath | None = None,
    task: TaskSettings | None = None,
    *,
    measured: FilePath | None = None,
) -> ImageData:
    """Open the data set of a recipe, all but its test images.

    Parameters
    ----------
    settings
        Data section of a recipe.
    folder
        Files of the recalibration and validation images for which there is no room in memory, to
        be used again by later processes. Without a folder they are decoded anew by every iteration.
    task
        What a network is to predict, as a recipe says it; by default the one of ours that is for
        the targets of the data.
    measured
        File for the mean and standard deviation of the training images, where the recipe says that
        these are measured; used again by later processes.

    Raises
    ------
    RecipeError
        There is no such task, or its keys do not go with the data.
    DataError
        Files are missing or damaged, could not be downloaded, have another number of classes than
        the recipe says, or are too few for the splits; one line that says what to do.
    """
    return ImageData(settings, folder, task, measured=measured)
