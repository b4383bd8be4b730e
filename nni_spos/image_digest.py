"""Are these the same images? Answered without PyTorch, and wherever they are.

Images that are moved with their names stay the same ones. What is taken apart: the names of all
files, their sizes, and what is in them; of very many files only some are looked at.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from nni_spos.dataset_specs import (
    DEBIAN_FASHION_MNIST,
    TEST_FOLDERS,
    class_names,
    dataset_root,
    find_idx,
)
from nni_spos.digests import BLOCK, DIGITS, digest_content, digest_file
from nni_spos.recipe import DataSettings

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of the files that are images."""

MOST_SIZES = 50_000
"""Files whose sizes are looked at."""

MOST_CONTENTS = 2_000
"""Files whose contents are looked at."""

_GZIP_TRAILER = 8
"""Bytes at the end of a packed file: check sum and size of what is in it."""


def digest_training_images(data: DataSettings) -> str | None:
    """Return what tells the training and validation images of a recipe from any others.

    None if they are always the same ones, or are not there yet.
    """
    if data.name == "image_folder" and data.root is not None:
        return _digest_folder(FilePath(data.root) / "train")
    return _digest_idx(data, "train") if data.name == "fashion_mnist" else None


def digest_test_images(data: DataSettings) -> str | None:
    """Return what tells the test images of a recipe from any others, or None."""
    if data.name == "image_folder" and data.root is not None:
        places = [FilePath(data.root) / name for name in TEST_FOLDERS]
        return next((_digest_folder(x) for x in places if x.is_dir()), None)
    return _digest_idx(data, "t10k") if data.name == "fashion_mnist" else None


def stamp_images(data: DataSettings) -> str | None:
    """Return what changes, at least, if an image comes or goes: at the cost of a few look-ups."""
    if data.root is None:
        return None
    folder = FilePath(data.root)
    if data.name == "image_folder":
        folder /= "train"
    places = [folder, *(folder / name for name in class_names(folder))]
    times = [x.stat().st_mtime_ns if x.exists() else None for x in places]
    return digest_content([list(map(str, places)), times])


def _digest_folder(folder: FilePath) -> str | None:
    names = sorted(x for name in class_names(folder) for x in _images(folder / name, name))
    if not names:
        return None
    digest = hashlib.sha256()
    for name in names:
        digest.update(os.fsencode(name) + b"\0")
    for name in _spread(names, MOST_SIZES):
        digest.update(b"%d\n" % _size(folder / name))
    for name in _spread(names, MOST_CONTENTS):
        digest.update(_content(folder / name))
    return digest.hexdigest()[:DIGITS]


def _images(folder: FilePath, inner: str) -> Iterator[str]:
    """Yield the names of the images in a class folder, and in those in it, with the class."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        found = os.stat(place)
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()  # a link back
            continue
        seen.add((found.st_dev, found.st_ino))
        prefix = os.path.normpath(os.path.join(inner, os.path.relpath(place, folder)))
        yield from (f"{prefix}/{x}" for x in files if x.lower().endswith(EXTENSIONS))


def _spread(names: Sequence[str], most: int) -> Sequence[str]:
    """Return all names, or `most` of them, evenly spread."""
    if len(names) <= most:
        return names
    return [names[i * len(names) // most] for i in range(most)]


def _size(file: FilePath) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1  # whoever reads the images says what is wrong with it


def _content(file: FilePath) -> bytes:
    try:
        return bytes.fromhex(digest_file(file))
    except OSError:
        return b""


def _digest_idx(data: DataSettings, prefix: str) -> str | None:
    """Return a digest of the check sums of what is in MNIST's files, packed or not."""
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    debian = [DEBIAN_FASHION_MNIST] if data.root is None else []
    found = next(filter(None, (find_idx(x, names) for x in [*debian, dataset_root(data)])), None)
    if found is None:
        return None
    try:
        return digest_content([_check_sum(file) for file in found])
    except OSError:
        return None


def _check_sum(file: FilePath) -> str:
    """Return CRC-32 and size of what is in a file; a packed one ends with them."""
    with open(file, "rb") as stream:
        if file.suffix == ".gz":
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _GZIP_TRAILER))
            return stream.read().hex()
        check_sum = size = 0
        while block := stream.read(BLOCK):
            check_sum = zlib.crc32(block, check_sum)
            size += len(block)
    return (check_sum.to_bytes(4, "little") + size.to_bytes(4, "little")).hex()
