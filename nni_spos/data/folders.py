"""Which image files a folder of classes has: each file once, and in one class only."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence

from torchvision.datasets.folder import IMG_EXTENSIONS

from nni_spos.display.progress import note_progress
from nni_spos.errors import DataError

Place = tuple[int, int]
"""Device and inode. Files with different ones are different files; the same ones are looked at
again, since some file systems list numbers that say nothing."""


def find_images(folder: str, classes: Sequence[str]) -> tuple[list[str], list[int], list[Place]]:
    """Find the images of every class; links are followed.

    A file that one class has twice, by a link to it or to a folder around it, is taken once: as two
    it could be trained with and validated on. Copies of a file are other files.

    Parameters
    ----------
    folder
        Has one folder for every class.
    classes
        Their names, in the order of the labels.

    Returns
    -------
    Paths below the folder, in the order of their classes, folders and names; their labels; and
    where they lie.

    Raises
    ------
    DataError
        A folder cannot be read or has no image, a link leads nowhere, or two classes have the same
        file.
    """
    names: list[str] = []
    labels: list[int] = []
    places: list[Place] = []
    known: dict[Place, int] = {}
    for name, label in sorted((name, label) for label, name in enumerate(classes)):
        number = len(names)
        note_progress()
        for file, place in _files_of(os.path.join(folder, name)):
            first = known.setdefault(place, len(names))
            other = os.path.join(folder, names[first]) if first < len(names) else ""
            if other and is_same(file, other):
                if labels[first] != label:
                    raise DataError(
                        f"image_folder: {other} and {file} are the same file, in two classes. "
                        "Remove one of them."
                    )
                continue
            names.append(os.path.relpath(file, folder))
            labels.append(label)
            places.append(place)
        if len(names) == number:
            raise DataError(
                f"image_folder: {os.path.join(folder, name)} has no image of its own. Allowed are "
                f"files that end in {', '.join(IMG_EXTENSIONS)}."
            )
    return names, labels, places


def is_same(file: str, other: str) -> bool:
    """Whether two names are those of one file. Raises DataError for what is not there."""
    try:
        return os.path.samefile(file, other)
    except OSError as problem:
        raise _unreadable(problem) from None


def _unreadable(problem: OSError) -> DataError:
    return DataError(f"image_folder: {problem.filename}: {problem.strerror}.")


def _files_of(folder: str) -> Iterator[tuple[str, Place]]:
    """Yield the images in a folder and in folders below it, sorted, and where each lies."""
    found: dict[str, list[tuple[str, Place]]] = {}
    seen: set[Place] = set()
    folders, links = deque([folder]), deque[str]()
    while folders or links:  # folders before links to them, so that it is the links that are left
        path = (folders or links).popleft()
        try:
            entry = os.stat(path)
            place = (entry.st_dev, entry.st_ino)
            if place not in seen:
                seen.add(place)
                found[path] = list(_entries(path, entry.st_dev, folders, links))
        except OSError as problem:
            raise _unreadable(problem) from None
    for path in sorted(found):
        yield from ((os.path.join(path, name), place) for name, place in found[path])


def _entries(
    path: str, device: int, folders: deque[str], links: deque[str]
) -> Iterator[tuple[str, Place]]:
    """Yield the images of one folder by name; folders in it are queued."""
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            elif entry.name.lower().endswith(IMG_EXTENSIONS):
                if entry.is_symlink():
                    target = os.stat(entry.path)
                    yield entry.name, (target.st_dev, target.st_ino)
                else:  # known from the folder: a million files are not looked at one by one
                    yield entry.name, (device, entry.inode())
