"""Tell whether images are still the same, without PyTorch and wherever they lie.

Images that are moved with their names stay the same ones. What is taken apart: the names of all
files, their sizes, and what is in them; of very many files only some are looked at.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from nni_spos.files.digests import BLOCK, DIGITS, digest_content, digest_file
from nni_spos.recipe.data_settings import DataSettings

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of the names of image files."""

MOST_SIZES = 50_000
"""Files whose sizes are looked at."""

MOST_CONTENTS = 2_000
"""Files whose contents are looked at."""

_GZIP_TRAILER = 8
"""Bytes at the end of a packed file: check sum and size of what is in it."""


def class_names(folder: FilePath) -> list[str]:
    """Return the names of the folders in a folder, in order; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(x.name for x in entries if x.is_dir() and not x.name.startswith("."))
    except OSError:
        return []


def stamp_images(data: DataSettings) -> str | None:
    """Return what changes, at least, if an image comes or goes: at the cost of a few look-ups.

    Looked at are the folders in the data set's folder ``train``, if it has one, else in its root.
    """
    if data.root is None:
        return None
    root = FilePath(data.root)
    folder = root / "train" if (root / "train").is_dir() else root
    places = [folder, *(folder / name for name in class_names(folder))]
    times = [x.stat().st_mtime_ns if x.exists() else None for x in places]
    return digest_content([list(map(str, places)), times])


def digest_folder(folder: FilePath) -> str | None:
    """Return a digest of the images in the class folders of a folder; None if there are none."""
    names = sorted(x for name in class_names(folder) for x in _images(folder / name, name))
    return digest_files(folder, names) if names else None


def digest_files(folder: FilePath, names: Sequence[str]) -> str:
    """Return a digest of files in a folder: of their names, and of what is in some of them."""
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


def digest_packed(files: Sequence[FilePath]) -> str | None:
    """Return a digest of the check sums of what is in files, packed or not.

    None if one cannot be read.
    """
    try:
        return digest_content([_check_sum(file) for file in files])
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
