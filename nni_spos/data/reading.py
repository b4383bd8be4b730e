"""Some images of a data set, read a batch at a time, by this process or by workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nni_spos.data.masks import prepare
from nni_spos.data.stores import ImageStore, VariedStore
from nni_spos.data.targets import as_tensor
from nni_spos.data.transforms import ImageTransform, random_keys
from nni_spos.errors import DataError

Batch = tuple[Tensor, Tensor]
"""Images, shape (N, C, H, W), and targets, shape (N, ...), int64 or float32."""


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
        Of the augmentation, which yields floats; None: prepare the images as for evaluation, not
        normalised.
    pixels
        Images prepared as for evaluation, where they are held, shape (N, C, H, W).
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

    @property
    def has_masks(self) -> bool:
        """Whether the targets are masks, which are transformed with the images."""
        return self._transform.has_masks

    def spread(self, number: int) -> ImageSplit:
        """Return so many images, evenly spread over all of these, or all if there are fewer."""
        places = np.linspace(0, len(self) - 1, min(number, len(self))).round().astype(np.int64)
        return ImageSplit(self._store, self._indices[places], self._transform)

    def targets(self) -> Tensor:
        """Return the targets of all images, which are no masks."""
        return as_tensor(self._store.targets[self._indices])

    def digest(self) -> str:
        """Return what tells the stored images of this split from those of any other."""
        return self._store.digest(self._indices)

    def __getitem__(self, key: int) -> Batch:
        images, targets = self.__getitems__([key])
        return images[0], targets[0]

    def __getitems__(self, keys: npt.ArrayLike) -> Batch:
        epochs, positions = np.divmod(np.asarray(keys, dtype=np.int64), len(self))
        indices = self._indices[positions]
        held = self._pixels
        mixed = None if self._seed is None else random_keys(self._seed, epochs, indices)
        if held is not None:
            images = held[torch.from_numpy(positions)]
        else:
            if mixed is not None and isinstance(self._store, VariedStore):
                found = self._store.read_varied(indices, mixed)
            else:
                found = self._store.read(indices)
            images = self._transform.promised(found, indices)
        if self._transform.has_masks:
            masks = self._store.targets[indices]
            name_of = getattr(self._store, "name_of", str)
            return prepare(self._transform, images, masks, indices, mixed, name_of)
        if mixed is None:
            pixels = self._transform.evaluation(images)
        else:
            pixels = self._transform.training(images, mixed)
        return pixels, as_tensor(self._store.targets[indices])


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
            images, targets = next(batches)
            if i == num_batches - 1:
                # Only at the end does a loader stop its workers, and who counts batches, like
                # Lightning, never gets there.
                next(batches, None)
            yield images, targets
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
