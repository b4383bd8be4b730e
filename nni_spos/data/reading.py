"""Some images of a data set, read a batch at a time, by this process or by workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nni_spos.data.stores import ImageStore
from nni_spos.data.transforms import ImageTransform, random_keys
from nni_spos.errors import DataError

Batch = tuple[Tensor, Tensor]
"""Images, shape (N, C, H, W), and labels, int64, shape (N,)."""


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
        Of the augmentation, which yields floats; None: prepare the images as for evaluation, uint8,
        not normalised.
    pixels
        Images prepared as for evaluation, where they are held: uint8, shape (N, C, H, W).
    """

    def __init__(
        self,
        store: ImageStore,
        indices: npt.NDArray[np.int64],
        transform: ImageTransform,
        seed: int | None = None,
        pixels: Tensor | None = None,
    ):
        self._store = store
        self._indices = indices
        self._transform = transform
        self._seed = seed
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._indices)

    def labels(self) -> Tensor:
        """Return the labels of all images."""
        return torch.from_numpy(self._store.labels[self._indices])

    def digest(self) -> str:
        """Return what tells the stored images of this split from those of any other."""
        return self._store.digest(self._indices)

    def __getitem__(self, key: int) -> Batch:
        images, labels = self.__getitems__([key])
        return images[0], labels[0]

    def __getitems__(self, keys: npt.ArrayLike) -> Batch:
        epochs, positions = np.divmod(np.asarray(keys, dtype=np.int64), len(self))
        indices = self._indices[positions]
        held = self._pixels
        images = self._store.read(indices) if held is None else held[torch.from_numpy(positions)]
        if self._seed is None:
            pixels = self._transform.evaluation(images)
        else:
            pixels = self._transform.training(images, random_keys(self._seed, epochs, indices))
        return pixels, torch.from_numpy(self._store.labels[indices])


class _Unreadable(Exception):
    """Why images cannot be read; unlike a DataError it can hold a worker's traceback, of lines."""


class _Raising(Dataset):
    """A split whose DataError can be handed on by a worker process."""

    def __init__(self, split: ImageSplit):
        self._split = split

    def __getitems__(self, keys: npt.ArrayLike) -> Batch:
        try:
            return self._split.__getitems__(keys)
        except DataError as problem:
            raise _Unreadable(str(problem)) from None


def read_batches(
    split: ImageSplit, keys: Iterable[list[int]], num_batches: int, workers: int
) -> Iterator[Batch]:
    """Read batches, with worker processes that are gone when the last batch is handed out."""
    loader = DataLoader(
        _Raising(split),
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
    except _Unreadable as problem:
        # A worker's error is the text of its traceback; the last line is ours.
        line = str(problem).strip().splitlines()[-1]
        damage = line.removeprefix(f"{__name__}.{_Unreadable.__name__}: ")
        # Else PyTorch's frames, kept by the traceback in a cycle, would keep the workers.
        problem.__traceback__ = None
    finally:
        batches = None  # and so would this frame, kept by the traceback of the next line
    if damage is not None:
        raise DataError(damage)


def _unchanged(batch: Batch) -> Batch:
    return batch
