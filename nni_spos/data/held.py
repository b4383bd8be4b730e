"""Images before augmentation, decoded once and kept: in memory, or beyond a limit in files.

A file is one line of JSON, which says what the pixels were made from and is padded to a whole
number of pages, then the pixels, then the SHA-256 of all that. Processes with the same recipe share
the file, and the memory that it is mapped to. Each reads it once to see that it is whole; one that
is not is made again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import PIL
import torch
import torchvision
from torch import Tensor

from nni_spos.data.pixels import array_type
from nni_spos.data.reading import Batch, ImageSplit, read_batches
from nni_spos.display.progress import note_progress, open_bar
from nni_spos.errors import DataError, text_of
from nni_spos.files.atomic import write_atomically
from nni_spos.files.digests import hash_start
from nni_spos.files.locks import exclusive
from nni_spos.files.owned import NotOwnError, open_own
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.image_size import height_width

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Shape (N, H, W, C): batches for the memory format channels_last then need no transposition."""

FORMAT = 3
"""Of the files; raise it with every change of what is in them."""

PAGE = 4096
"""Bytes; the pixels begin at a multiple."""

DIGEST_BYTES = 32
"""Of the digest at the end of a file."""

PART = 64
"""Images that are decoded at a time."""

UNWATCHED_S = 2.0
"""Seconds of decoding before a progress bar is shown."""


@dataclass(frozen=True)
class HeldImages:
    """Decoded images; do not change them.

    Parameters
    ----------
    pixels
        uint8 or uint16, shape (N, C, H, W), in the memory format channels_last.
    targets
        Shape (N, ...), int64 or float32; masks in the type of the pixels.
    """

    pixels: Tensor
    targets: Tensor

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Return views of at most `batch_size` images and targets each."""
        parts = (values.split(batch_size) for values in (self.pixels, self.targets))
        return zip(*parts, strict=True)


@dataclass(frozen=True)
class _Kept:
    split: ImageSplit
    images: HeldImages
    num_bytes: int  # in memory


class ImageHolder:
    """Decodes splits of one data set as for evaluation, and keeps them.

    Parameters
    ----------
    spec
        Gives the size of the images, their channels and bits.
    limit
        Bytes that all splits together may take in memory; what is more goes to files.
    folder
        Of the files, which are used again by later processes; None: no files.
    workers
        Processes that decode; 0: this one.
    """

    def __init__(self, spec: DatasetSpec, limit: int, folder: FilePath | None, workers: int):
        # A mask is held as one more channel of its image.
        num_channels = spec.channels + (spec.target == "mask")
        self._shape = (*height_width(spec.image_size), num_channels)
        self._type = array_type(spec)
        self._image_bytes = math.prod(self._shape) * self._type.itemsize
        self._limit = limit
        self._folder = folder
        self._workers = workers
        self._kept: dict[str, _Kept] = {}

    def hold(self, name: str, split: ImageSplit, made_from: Mapping[str, Any]) -> HeldImages | None:
        """Return the images of a split, or None if they are too many and there is no folder.

        Parameters
        ----------
        name
            Of the file, and for the progress bar; another split of this name is forgotten.
        split
            Images prepared as for evaluation.
        made_from
            What the pixels depend on, apart from the stored images, as JSON has it.

        Raises
        ------
        DataError
            An image cannot be read, or the file cannot be written.
        """
        images = self.hold_in_memory(name, split)
        if images is None and self._folder is not None and self._type.kind == "u":
            file = self._folder / f"{name}.u{8 * self._type.itemsize}"
            pixels = self._mapped(name, split, made_from, file)
            images = self._keep(name, split, pixels, num_bytes=0)
        return images

    def hold_in_memory(self, name: str, split: ImageSplit) -> HeldImages | None:
        """Return the images of a split, or None if they are too many; see `hold`."""
        if name in self._kept and self._kept[name].split is not split:
            del self._kept[name]  # its memory is free for the new one
        if name not in self._kept:
            num_bytes = len(split) * self._image_bytes
            if sum(kept.num_bytes for kept in self._kept.values()) + num_bytes > self._limit:
                return None
            self._keep(name, split, self._decoded(name, split), num_bytes)
        return self._kept[name].images

    # Tensors made in inference mode, in which batches are often read, could not be used in a later
    # training.
    @torch.inference_mode(False)
    def _keep(self, name: str, split: ImageSplit, pixels: Pixels, num_bytes: int) -> HeldImages:
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if split.has_masks:
            images = HeldImages(values[:, :-1], values[:, -1])
        else:
            images = HeldImages(values, split.targets())
        self._kept[name] = _Kept(split, images, num_bytes)
        return images

    def _decoded(self, name: str, split: ImageSplit) -> Pixels:
        pixels = np.empty((len(split), *self._shape), self._type)
        start = 0
        for part in self._parts(name, split):
            pixels[start : start + len(part)] = part
            start += len(part)
        return pixels

    def _parts(self, name: str, split: ImageSplit) -> Iterator[Pixels]:
        keys = [part.tolist() for part in torch.arange(len(split)).split(PART)]
        title = f"decode {name} images"
        with open_bar(title, len(split), "image", delay=UNWATCHED_S) as bar:
            for images, targets in read_batches(split, keys, len(keys), self._workers):
                if split.has_masks:
                    images = torch.cat([images, targets[:, None].to(images.dtype)], 1)
                yield images.permute(0, 2, 3, 1).contiguous().numpy()
                bar.update(len(images))
                note_progress()

    def _mapped(
        self, name: str, split: ImageSplit, made_from: Mapping[str, Any], file: FilePath
    ) -> Pixels:
        shape = (len(split), *self._shape)
        header = _header({**made_from, "images": split.digest(), "shape": shape})
        try:
            pixels = _open(file, header, shape, self._type)
            if pixels is None:
                refusal = DataError(f"{file}: another process is writing it.")
                with exclusive(file.with_suffix(".lock"), timeout=-1, refusal=refusal):
                    # By now another process may have made it.
                    pixels = _open(file, header, shape, self._type)
                    if pixels is None:
                        self._write(name, split, file, header)
                        pixels = _open(file, header, shape, self._type)
        except OSError as problem:
            raise DataError(
                f"{file}: cannot be written or read ({text_of(problem)}). Give the recipe another "
                f"output folder, or more memory to hold the images in (held_mb)."
            ) from None
        assert pixels is not None
        return pixels

    def _write(self, name: str, split: ImageSplit, file: FilePath, header: bytes) -> None:
        # Temporary files of processes that were killed, and images that are no longer wanted:
        # they may be as large as what is to be written.
        for useless in (file, *file.parent.glob(f".{file.name}.*")):
            useless.unlink(missing_ok=True)
        size = len(split) * self._image_bytes
        free = shutil.disk_usage(file.parent).free
        if size + len(header) + DIGEST_BYTES > free:
            raise OSError(f"it needs {_mb(size)} MB, the disk has {_mb(free)} MB left")

        def write(stream: BinaryIO) -> None:
            digest = hashlib.sha256()
            pixels = (part.tobytes() for part in self._parts(name, split))
            for part in itertools.chain([header], pixels):
                digest.update(part)
                stream.write(part)
            stream.write(digest.digest())

        write_atomically(file, write)


def _header(made_from: Mapping[str, Any]) -> bytes:
    # Which pixels a JPEG file becomes depends on the decoder too.
    versions = {"Pillow": PIL.__version__, "torchvision": torchvision.__version__}
    line = json.dumps({"format": FORMAT, **versions, **made_from}, sort_keys=True).encode()
    num_pages = len(line) // PAGE + 1
    return line.ljust(num_pages * PAGE - 1) + b"\n"


def _open(
    file: FilePath, header: bytes, shape: tuple[int, ...], kind: np.dtype[Any]
) -> Pixels | None:
    """Map a file of this user to memory; None if none is whole, of this header and shape."""
    try:
        with open(open_own(file, os.O_RDONLY), "rb") as stream:
            size = len(header) + math.prod(shape) * kind.itemsize
            if stream.read(len(header)) != header or stream.seek(0, 2) != size + DIGEST_BYTES:
                return None
            if not _is_whole(stream, size):
                return None
            # Copy on write: PyTorch warns of tensors that cannot be written to.
            return np.memmap(stream, kind, "c", offset=len(header), shape=shape)
    except (FileNotFoundError, PermissionError, NotOwnError):
        return None


def _is_whole(stream: BinaryIO, size: int) -> bool:
    """Whether the first `size` bytes are followed by their digest."""
    digest = hash_start(stream, size).digest()
    return stream.read(DIGEST_BYTES) == digest


def _mb(num_bytes: int) -> int:
    return math.ceil(num_bytes / 2**20)
