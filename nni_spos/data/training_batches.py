"""Batches of training images: each epoch in another order, divided among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from nni_spos.data.reading import Batch, ImageSplit, read_batches
from nni_spos.errors import DataError

Order = Callable[[int, int], npt.NDArray[np.int64]]
"""Positions of images by (seed, epoch), as many as there are images."""


class EpochSampler:
    """The batches of an epoch, as lists of keys of an `ImageSplit`.

    The order of an epoch is a function of (seed, epoch). Under torch.distributed every rank takes
    its own part of each batch, all parts of one size, so that a batch has the same images however
    many ranks there are. If there is more than one batch, all are full: the images left over are
    other ones in every epoch.

    Parameters
    ----------
    num_images
        Size of the split.
    batch_size
        Images in a batch, of all ranks together.
    seed
        Decides the order.
    epoch
        The epoch to begin with.
    order
        Another order, a function of (seed, epoch); None: all images, shuffled.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        order: Order | None = None,
    ):
        self._order = order
        self._num_images = num_images
        self._batch_size = batch_size
        self._seed = seed
        self.epoch = epoch
        self.first_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self._num_images // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        # The process group may have been made after this object, so it is asked only now.
        rank, world_size = _world()
        if self._order is None:
            order = np.random.default_rng([self._seed, self.epoch]).permutation(self._num_images)
        else:
            order = self._order(self._seed, self.epoch)
        keys = order + self.epoch * self._num_images
        share = min(self._batch_size, self._num_images) // world_size
        if not share:
            raise DataError(f"a batch needs at least one image for each of {world_size} processes.")
        for i in range(self.first_batch, len(self)):
            first = i * self._batch_size + rank * share
            yield keys[first : first + share].tolist()


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
        batches = read_batches(self.dataset, self.sampler, len(self) - first, self._workers)
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
