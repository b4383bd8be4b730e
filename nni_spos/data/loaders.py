"""Batches of images for training, recalibration, validation and the final test."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nni_spos.data.datasets import (
    DatasetSpec,
    ImageStore,
    ImageTensor,
    dataset_spec,
    open_test_set,
    open_training_set,
)
from nni_spos.data.splits import split_training_set
from nni_spos.data.transforms import ImageTransform, describe_preprocessing, random_keys
from nni_spos.errors import DataError
from nni_spos.recipe import DataSettings

Batch = tuple[Tensor, Tensor]
"""Images, float, shape (N, C, H, W), and labels, int64, shape (N,)."""

MAX_CACHED_BYTES = 2**29
"""A split of an in-memory data set is kept ready for evaluation up to this size."""


class ImageSplit(Dataset):
    """Some images of a store, read a whole batch at a time.

    An item is asked for by ``epoch * len(split) + position``, so that worker processes need no
    state to know how to augment it.

    Parameters
    ----------
    store
        All images.
    indices
        Which of them, shape (N,).
    transform
        From stored images to the network's input.
    seed
        Of the augmentation; None: prepare the images as for evaluation.
    """

    def __init__(
        self,
        store: ImageStore,
        indices: npt.NDArray[np.int64],
        transform: ImageTransform,
        seed: int | None = None,
    ):
        self._store = store
        self._indices = indices
        self._transform = transform
        self._seed = seed
        self._prepared: Batch | None = None

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, key: int) -> Batch:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __getitems__(self, keys: npt.ArrayLike) -> Batch:
        epochs, positions = np.divmod(np.asarray(keys, dtype=np.int64), len(self))
        indices = self._indices[positions]
        images = self._store.read(indices)
        if self._seed is None:
            pixels = self._transform.evaluation(images)
        else:
            pixels = self._transform.training(images, random_keys(self._seed, epochs, indices))
        return pixels, torch.from_numpy(self._store.labels[indices])

    def prepared(self) -> Batch | None:
        """Return the whole split, prepared once and kept; None where it has to be read anew.

        It has where the images are files, are augmented, or would take more than
        `MAX_CACHED_BYTES`.
        """
        if (
            self._prepared is None
            and self._seed is None
            and isinstance(self._store, ImageTensor)
            and len(self) * self[0][0].numel() * 4 <= MAX_CACHED_BYTES
        ):
            # A part at a time, to bound the memory for intermediate results.
            parts = [self.__getitems__(keys) for keys in torch.arange(len(self)).split(500)]
            images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
            self._prepared = images, labels
        return self._prepared


class EpochSampler:
    """The batches of an epoch, as lists of keys of an `ImageSplit`.

    The order of an epoch is a function of (seed, epoch). Under torch.distributed every rank takes
    its own part of the same order. If there is more than one batch, all are full: the images left
    over are other ones in every epoch.

    Parameters
    ----------
    num_images
        Size of the split.
    batch_size
        Images in a batch, of one rank.
    seed
        Decides the order.
    epoch
        The epoch to begin with.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, epoch: int = 0):
        self._num_images = num_images
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = epoch
        self.first_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self._num_images // _world()[1] // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # The process group may have been made after this object, so it is asked only now.
        rank, world_size = _world()
        order = np.random.default_rng([self._seed, self.epoch]).permutation(self._num_images)
        part = order[rank::world_size][: max(1, self._num_images // world_size)]
        keys = part + self.epoch * self._num_images
        for i in range(self.first_batch, len(self)):
            yield keys[i * self._batch_size : (i + 1) * self._batch_size].tolist()


def _world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class TrainBatches:
    """Augmented training images in random order, one epoch for each iteration.

    Not a DataLoader but around one, for three reasons. Lightning makes the iterator of a resumed
    epoch before it sets the epoch, and worker processes would by then be busy with another one;
    here everything starts with the first batch. Lightning would replace the sampler under
    distributed training. And an unreadable image is reported in one line, also by a worker.

    Without Lightning, call ``batches.sampler.set_epoch(epoch)`` before each epoch.

    Parameters
    ----------
    split
        The training images.
    sampler
        The order of keys.
    workers
        Processes that prepare images; 0: this one.
    """

    def __init__(self, split: ImageSplit, sampler: EpochSampler, workers: int):
        self.dataset = split
        self.sampler = sampler
        self._workers = workers
        self._position = (sampler.epoch, 0)
        self._resumed = self._position

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        epoch, num_batches = self._resumed
        # Of a saved position only its own epoch is cut short, and only once.
        first = num_batches % len(self) if self.sampler.epoch == epoch else 0
        self._resumed = (epoch, 0)
        self.sampler.first_batch = first
        self._position = (self.sampler.epoch, first)
        batches = _read(self.dataset, self.sampler, len(self) - first, self._workers)
        for i, batch in enumerate(batches, start=first):
            self._position = (self._position[0], i + 1)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches are done; Lightning saves it."""
        epoch, num_batches = self._position
        return {"epoch": epoch, "num_batches": num_batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration over the saved epoch continue it."""
        self._position = self._resumed = (state["epoch"], state["num_batches"])


class EvaluationBatches:
    """Images prepared for evaluation, always the same ones in the same order.

    An in-memory data set is prepared once, at the first iteration, and kept: do not change the
    tensors in place.

    Parameters
    ----------
    split
        The images.
    batch_size
        Images in a batch; the last one may be smaller.
    workers
        Processes that prepare images; 0: this one.
    """

    def __init__(self, split: ImageSplit, batch_size: int, workers: int):
        self._split = split
        self._batch_size = batch_size
        self._workers = workers

    def __len__(self) -> int:
        return math.ceil(len(self._split) / self._batch_size)

    @property
    def num_images(self) -> int:
        """Number of images in all batches."""
        return len(self._split)

    def __iter__(self) -> Iterator[Batch]:
        prepared = self._split.prepared()
        if prepared is not None:
            images, labels = (values.split(self._batch_size) for values in prepared)
            yield from zip(images, labels, strict=True)
            return
        keys = [part.tolist() for part in torch.arange(len(self._split)).split(self._batch_size)]
        yield from _read(self._split, keys, len(keys), self._workers)


class ImageData:
    """The three splits of a data set; made by `open_data`.

    Only `test_batches` opens the test set.

    Parameters
    ----------
    settings
        Data section of a recipe.

    Raises
    ------
    DataError
        See `open_data`.
    """

    def __init__(self, settings: DataSettings):
        self.spec: DatasetSpec = dataset_spec(settings)
        self._settings = settings
        self._store = open_training_set(settings, self.spec)
        try:
            self._splits = split_training_set(
                self._store.labels, settings.num_train, settings.num_validation, settings.split_seed
            )
        except DataError as problem:
            raise DataError(f"{settings.name}: {problem}") from None
        self._transform = ImageTransform(self.spec)
        self._validation = ImageSplit(self._store, self._splits.validation, self._transform)
        self._recalibration: tuple[tuple[int, int], ImageSplit] | None = None
        self._test: ImageSplit | None = None

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
        }

    def train_loader(self, batch_size: int, seed: int, start_epoch: int = 0) -> TrainBatches:
        """Return augmented training images.

        Order and augmentation are functions of (seed, epoch) and (seed, epoch, image), whatever
        the number of workers and the state of PyTorch's generators, which stay as they are.

        Parameters
        ----------
        batch_size
            Images in a batch; a split smaller than that is one batch.
        seed
            Seed of order and augmentation.
        start_epoch
            Epoch of the first iteration; Lightning sets its own.
        """
        split = ImageSplit(self._store, self._splits.train, self._transform, seed)
        sampler = EpochSampler(len(split), batch_size, seed, start_epoch)
        return TrainBatches(split, sampler, self._settings.workers)

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
        return EvaluationBatches(self._recalibration[1], batch_size, self._settings.workers)

    def validation_batches(self, batch_size: int) -> EvaluationBatches:
        """Return the images that the search scores paths with."""
        return EvaluationBatches(self._validation, batch_size, self._settings.workers)

    def test_batches(self, batch_size: int) -> EvaluationBatches:
        """Return the test images, for the last line of a retraining. Raises DataError."""
        if self._test is None:
            store = open_test_set(self._settings, self.spec)
            self._test = ImageSplit(store, np.arange(len(store.labels)), self._transform)
        return EvaluationBatches(self._test, batch_size, self._settings.workers)


def open_data(settings: DataSettings) -> ImageData:
    """Open the data set of a recipe, all but its test images.

    Raises
    ------
    DataError
        Files are missing or damaged, could not be downloaded, have another number of classes than
        the recipe says, or are too few for the splits; one line that says what to do.
    """
    return ImageData(settings)


def _read(
    split: ImageSplit, keys: Iterable[list[int]], num_batches: int, workers: int
) -> Iterator[Batch]:
    """Read batches, with worker processes that are gone when the last batch is handed out."""
    loader = DataLoader(
        split,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        pin_memory=workers > 0 and torch.cuda.is_available(),
        # Without one of its own a loader draws from PyTorch's global generator.
        generator=torch.Generator(),
    )
    damage = None
    batches = iter(loader)
    try:
        for i in range(num_batches):
            images, labels = next(batches)
            if i == num_batches - 1:
                # Only at the end does a loader stop its workers, and who counts batches, like
                # Lightning, never gets there.
                next(batches, None)
            yield images, labels
    except DataError as problem:
        # A worker's error is the text of its traceback; the last line is ours.
        line = str(problem).strip().splitlines()[-1]
        damage = line.removeprefix(f"{DataError.__module__}.DataError: ")
        # Else PyTorch's frames, kept by the traceback in a cycle, would keep the workers.
        problem.__traceback__ = None
    finally:
        batches = None  # and so would this frame, kept by the traceback of the next line
    if damage is not None:
        raise DataError(damage)


def _unchanged(batch: Batch) -> Batch:
    return batch
