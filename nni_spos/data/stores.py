"""Labelled images: all in memory, or files that are decoded when they are needed."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path as FilePath

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from nni_spos.data.folders import find_images, is_same
from nni_spos.data.rgb import to_rgb
from nni_spos.errors import DataError
from nni_spos.progress import note_progress

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]

DAMAGED = (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error)
"""What reading a damaged file raises, packed or an image."""


class ImageTensor:
    """Images of one size, all in memory.

    Parameters
    ----------
    images
        Shape (N, C, H, W), uint8.
    labels
        Shape (N,).
    """

    def __init__(self, images: Tensor, labels: Labels):
        self._images = images
        self.labels = labels

    def read(self, indices: Indices) -> Tensor:
        """Return images, shape (len(indices), C, H, W), uint8."""
        return self._images[torch.from_numpy(indices)]

    def digest(self, indices: Indices) -> str:
        """Return what tells these images, in this order, from any others."""
        digest = hashlib.sha256()
        for part in np.array_split(indices, len(indices) // 1000 + 1):
            digest.update(self.read(part).numpy().tobytes())
        return digest.hexdigest()


class ImageFiles:
    """Image files that are decoded when they are needed, in RGB.

    Parameters
    ----------
    folder
        Has one folder of images for every class.
    classes
        Names of these folders; the position of a name is the label.

    Raises
    ------
    DataError
        A folder is missing or has no image, or two classes have the same file.
    """

    def __init__(self, folder: FilePath, classes: list[str]):
        self._folder = os.fsencode(folder)
        names, labels, places = find_images(str(folder), classes)
        # Arrays, not lists of a million objects: worker processes share them for good, because
        # reading them changes no reference count.
        self._names = np.array([os.fsencode(name) for name in names])
        self._places = np.array(places, dtype=[("device", np.uint64), ("inode", np.uint64)])
        self.labels = np.array(labels, dtype=np.int64)

    def find_common(self, other: ImageFiles) -> str:
        """Return the name of a file that another store has as well, or ``""``."""
        _, mine, theirs = np.intersect1d(self._places, other._places, return_indices=True)
        for one, two in zip(mine, theirs, strict=True):
            file = self._path(self._names[one])
            if is_same(file, other._path(other._names[two])):
                return file
        return ""

    def read(self, indices: Indices) -> list[Image.Image]:
        """Decode images. Raises DataError with the name of a file that cannot be read."""
        return [self._decode(bytes(self._names[i])) for i in indices]

    def digest(self, indices: Indices) -> str:
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
                raise DataError(f"image_folder: {one_line(problem)}.") from None
            stamp = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            digest.update(b"%b\0%d %d %d %d\n" % (name, *stamp))
        return digest.hexdigest()

    def _decode(self, name: bytes) -> Image.Image:
        file = self._path(name)
        try:
            with Image.open(file) as image:
                return to_rgb(image)
        except (*DAMAGED, Image.DecompressionBombError) as problem:
            raise DataError(f"{file}: cannot be read as an image ({one_line(problem)}).") from None

    def _path(self, name: bytes) -> str:
        return os.fsdecode(os.path.join(self._folder, bytes(name)))


ImageStore = ImageTensor | ImageFiles


def one_line(problem: BaseException) -> str:
    """Return the text of an error for the middle of a message."""
    return " ".join(str(problem).split()).rstrip(".") or type(problem).__name__
