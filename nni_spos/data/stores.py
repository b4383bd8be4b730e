"""Labelled images: all in memory, or files that are decoded when they are needed."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from nni_spos.data.decoding import decode
from nni_spos.data.folders import find_images, is_same
from nni_spos.data.pixels import COLOUR, Images
from nni_spos.data.targets import Targets
from nni_spos.display.progress import note_progress
from nni_spos.errors import DataError, text_of

ImageIndices = npt.NDArray[np.int64]

DAMAGED = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error)
"""What reading a damaged file raises, packed or an image."""


@runtime_checkable
class ImageStore(Protocol):
    """Images with targets, that are read when they are needed.

    Parameters
    ----------
    targets
        Shape (N, ...): int64 for classes, float32 for labels and values; for masks whole numbers of
        shape (N, H, W).
    """

    targets: Targets

    def read(self, indices: ImageIndices) -> Any:
        """Return images of one size, uint8 or uint16, shape (len(indices), C, H, W), or a list.

        In a list an image may have a size of its own: one of Pillow's, or an array or tensor of
        shape (C, H, W). Channels and type are those that the data set's spec says.
        """

    def digest(self, indices: ImageIndices) -> str:
        """Return what tells these images, in this order, from any others.

        Decoded images are kept in files, and used again while this is the same.
        """


@runtime_checkable
class VariedStore(ImageStore, Protocol):
    """A store whose images vary by themselves, as a data set's own transforms make them."""

    def read_varied(self, indices: ImageIndices, keys: npt.NDArray[np.uint64]) -> Any:
        """Return images as `read` does, each varied as its key says: the same for the same key."""


class ImageTensor:
    """Images of one size, all in memory.

    Parameters
    ----------
    images
        Shape (N, C, H, W), uint8 or uint16.
    targets
        Shape (N, ...).
    """

    def __init__(self, images: Tensor, targets: Targets):
        self._images = images
        self.targets = targets

    def read(self, indices: ImageIndices) -> Tensor:
        """Return images, shape (len(indices), C, H, W)."""
        return self._images[torch.from_numpy(indices)]

    def digest(self, indices: ImageIndices) -> str:
        """Return what tells these images, in this order, from any others."""
        digest = hashlib.sha256()
        for part in np.array_split(indices, len(indices) // 1000 + 1):
            digest.update(self.read(part).numpy().tobytes())
        return digest.hexdigest()


class ListedFiles:
    """Image files that are decoded when they are needed.

    Parameters
    ----------
    folder
        Where they are.
    names
        Of the files, below the folder.
    targets
        Shape (N, ...).
    groups
        What images must not be divided by a split, shape (N,); None: none.
    channels, bits
        See `nni_spos.data.decoding.decode`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        names: Sequence[str],
        targets: Targets,
        groups: npt.NDArray[Any] | None = None,
        channels: int = COLOUR,
        bits: int | None = None,
    ):
        self._decoded_as = (channels, bits)
        self._folder = os.fsencode(folder)
        # Arrays, not lists of a million objects: worker processes share them for good, because
        # reading them changes no reference count.
        self._names = np.array([os.fsencode(name) for name in names])
        self.targets = targets
        self.groups = groups

    def only(self, indices: ImageIndices) -> ListedFiles:
        """Return some of the files."""
        names = [os.fsdecode(bytes(x)) for x in self._names[indices]]
        groups = None if self.groups is None else self.groups[indices]
        place = os.fsdecode(self._folder)
        return ListedFiles(place, names, self.targets[indices], groups, *self._decoded_as)

    def name_of(self, index: int) -> str:
        """Return the name of a file below the folder."""
        return os.fsdecode(bytes(self._names[index]))

    def check(self, index: int) -> None:
        """Read an image. Raises DataError if it cannot be read."""
        self.read(np.array([index]))

    def read(self, indices: ImageIndices) -> Images:
        """Decode images. Raises DataError with the name of a file that cannot be read."""
        return [self._decode(bytes(self._names[i])) for i in indices]

    def digest(self, indices: ImageIndices) -> str:
        """Return what tells these files, in this order, from any others and from other contents.

        The contents are not read; sizes and times of change stand for them, also the time that no
        program can set, and the places on the disk: files may be exchanged for others of the same
        size and age.
        """
        digest = hashlib.sha256()
        for number, name in enumerate(map(bytes, self._names[indices])):
            if number % 1000 == 0:
                note_progress()
            try:
                found = os.stat(os.path.join(self._folder, name))
            except OSError as problem:
                file = os.fsdecode(os.path.join(self._folder, name))
                raise DataError(f"{file}: {problem.strerror or text_of(problem)}.") from None
            stamp = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            digest.update(b"%b\0%d %d %d %d\n" % (name, *stamp))
        return digest.hexdigest()

    def _decode(self, name: bytes) -> Image.Image | Tensor:
        file = self._path(name)
        try:
            with Image.open(file) as image:
                return decode(image, *self._decoded_as)
        except (*DAMAGED, Image.DecompressionBombError) as problem:
            raise DataError(f"{file}: cannot be read as an image ({text_of(problem)}).") from None

    def _path(self, name: bytes) -> str:
        return os.fsdecode(os.path.join(self._folder, bytes(name)))


class ImageFiles(ListedFiles):
    """The image files of class folders.

    Parameters
    ----------
    folder
        Has one folder of images for every class.
    classes
        Names of these folders; the position of a name is the label.
    channels, bits
        See `nni_spos.data.decoding.decode`.

    Raises
    ------
    DataError
        A folder is missing or has no image, or two classes have the same file.
    """

    def __init__(
        self,
        folder: FilePath,
        classes: list[str],
        channels: int = COLOUR,
        bits: int | None = None,
    ):
        names, targets, places = find_images(str(folder), classes)
        kept = np.array(targets, dtype=np.int64)
        super().__init__(folder, names, kept, channels=channels, bits=bits)
        self._places = np.array(places, dtype=[("device", np.uint64), ("inode", np.uint64)])

    def find_common(self, other: ImageFiles) -> str:
        """Return the name of a file that another store has as well, or ``""``."""
        _, mine, theirs = np.intersect1d(self._places, other._places, return_indices=True)
        for one, two in zip(mine, theirs, strict=True):
            file = self._path(self._names[one])
            if is_same(file, other._path(other._names[two])):
                return file
        return ""
