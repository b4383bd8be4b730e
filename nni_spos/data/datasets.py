"""The data sets: what is known about each without its files, and how its files are read.

A data set has two parts. The *training set* is what `nni_spos.data.splits` divides into the
training and the search-validation split; the *test set* is read by a function of its own, so that
nothing reads it by accident.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import math
import struct
import sys
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torchvision.datasets import CIFAR10, FashionMNIST
from torchvision.datasets.utils import check_integrity

from nni_spos.data.stores import DAMAGED, ImageFiles, ImageStore, ImageTensor, one_line
from nni_spos.dataset_specs import (
    DEBIAN_FASHION_MNIST,
    SPECS,
    TEST_FOLDERS,
    DatasetSpec,
    class_names,
    dataset_root,
    find_idx,
)
from nni_spos.errors import DataError
from nni_spos.locks import exclusive
from nni_spos.recipe import DataSettings

_DOWNLOAD = "Set 'download: true' in the recipe's data section"


def dataset_spec(settings: DataSettings) -> DatasetSpec:
    """Describe the data set of a recipe; only an image folder's class folders may be listed.

    Raises
    ------
    DataError
        `num_classes` contradicts the data set, or is not given for an image folder whose training
        folder is missing; or `crop_pct` is given for another data set.

    Examples
    --------
    >>> dataset_spec(DataSettings("fashion_mnist")).image_size
    28
    """
    spec = SPECS[settings.name]
    if settings.crop_pct is not None and spec.native_size is not None:
        raise DataError(
            f"crop_pct: the images of {spec.name} are not cropped. Only those of image_folder are."
        )
    num_classes = settings.num_classes
    if settings.name != "image_folder":
        if num_classes not in (None, spec.num_classes):
            raise DataError(
                f"{spec.name} has {spec.num_classes} classes, but the recipe's data section says "
                f"num_classes = {num_classes}."
            )
        num_classes = spec.num_classes
    elif num_classes is None:
        num_classes = len(_class_names(_image_folder_root(settings) / "train"))
    return dataclasses.replace(
        spec,
        num_classes=num_classes,
        image_size=settings.image_size or spec.image_size,
        augmentation=settings.augmentation or spec.augmentation,
        crop_pct=settings.crop_pct or spec.crop_pct,
    )


def open_training_set(settings: DataSettings, spec: DatasetSpec) -> ImageStore:
    """Open all labelled images that may be seen before the final test.

    Raises
    ------
    DataError
        The files are missing (the message says where they were looked for and how to get them),
        damaged, or hold another number of classes than `spec`.
    """
    for key, value in (("root", settings.root), ("download", settings.download)):
        unused = settings.name == "digits" or (settings.name, key) == ("image_folder", "download")
        if value and unused:
            warnings.warn(f"data: '{key}' is ignored for {settings.name}.", stacklevel=3)
    return _open(settings, spec, train=True)


def open_test_set(settings: DataSettings, spec: DatasetSpec) -> ImageStore:
    """Open the test set. Raises DataError like `open_training_set`."""
    return _open(settings, spec, train=False)


def _open(settings: DataSettings, spec: DatasetSpec, train: bool) -> ImageStore:
    if settings.name == "digits":
        return _digits(train)
    if settings.name == "fashion_mnist":
        return _fashion_mnist(settings, train)
    if settings.name == "cifar10":
        return _cifar10(settings, train)
    return _image_folder(settings, spec, train)


def _digits(train: bool) -> ImageTensor:
    digits = load_digits()
    # Which fifth is the test set must never change, hence the fixed seed.
    parts = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
    )
    indices = np.sort(parts[0 if train else 1])
    pixels = np.rint(digits.images[indices] * (255 / 16)).astype(np.uint8)
    return ImageTensor(torch.from_numpy(pixels[:, None]), digits.target[indices].astype(np.int64))


def _fashion_mnist(settings: DataSettings, train: bool) -> ImageTensor:
    prefix = "train" if train else "t10k"
    names = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    files = None
    searched = []
    if settings.root is None and DEBIAN_FASHION_MNIST.is_dir():
        searched.append(DEBIAN_FASHION_MNIST)
        files = find_idx(DEBIAN_FASHION_MNIST, names)
    if files is None:
        root = dataset_root(settings)
        searched += [root, root / "FashionMNIST" / "raw"]
        with _download_lock(root) if settings.download else contextlib.nullcontext():
            files = find_idx(root, names)
            if files is None and settings.download:
                with _explained_download("fashion_mnist", root):
                    FashionMNIST(root, download=True)
                files = find_idx(root, names)
    if files is None:
        raise DataError(
            f"fashion_mnist: {names[0]}.gz and {names[1]}.gz are not in "
            f"{' or '.join(map(str, searched))}. {_DOWNLOAD}, or install Debian's package "
            "dataset-fashion-mnist."
        )
    images, labels = _read_idx(files[0], 3), _read_idx(files[1], 1)
    if not (0 < len(images) == len(labels) and images.shape[1:] == (28, 28) and labels.max() < 10):
        raise DataError(
            f"fashion_mnist: {files[0]} and {files[1].name} do not belong together: images of "
            f"shape {images.shape} and {len(labels)} labels. Delete them. {_DOWNLOAD}."
        )
    return ImageTensor(torch.from_numpy(images[:, None]), labels.astype(np.int64))


def _read_idx(file: FilePath, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an array in the format of MNIST's files: type, dimensions, bytes."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content: bytes = stream.read()
        zeros, kind, dimensions, *shape = struct.unpack_from(f">HBB{num_dimensions}I", content)
        size = math.prod(shape)
        start = 4 + 4 * num_dimensions
        if (zeros, kind, dimensions) != (0, 8, num_dimensions) or len(content) != start + size:
            raise ValueError("unexpected header or length")
    except DAMAGED as problem:
        raise DataError(
            f"fashion_mnist: {file} is damaged ({one_line(problem)}). Delete it. {_DOWNLOAD}, or "
            "install Debian's package dataset-fashion-mnist again."
        ) from None
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)


class _Cifar10TrainingSet(CIFAR10):  # torchvision checks, so reads, the files of both lists
    test_list: list[Any] = []  # noqa: RUF012


class _Cifar10TestSet(CIFAR10):
    train_list: list[Any] = []  # noqa: RUF012


def _cifar10(settings: DataSettings, train: bool) -> ImageTensor:
    part = _Cifar10TrainingSet if train else _Cifar10TestSet
    root = dataset_root(settings)
    try:
        if settings.download:
            with _download_lock(root), _explained_download("cifar10", root):
                dataset = part(root, train=train, download=True)
        else:
            dataset = part(root, train=train)
    except (RuntimeError, OSError):
        # torchvision says "not found or corrupted"; find out which.
        folder = root / part.base_folder
        lists = (*part.train_list, *part.test_list, (part.meta["filename"], part.meta["md5"]))
        bad = [folder / name for name, md5 in lists if not check_integrity(folder / name, md5)]
        if bad and bad[0].exists():
            raise DataError(f"cifar10: {bad[0]} is damaged. Delete it. {_DOWNLOAD}.") from None
        raise DataError(
            f"cifar10: {bad[0].name if bad else 'data_batch_1'} is not in {folder}. {_DOWNLOAD}, "
            f"or unpack {part.filename} into {root}."
        ) from None
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return ImageTensor(images, np.array(dataset.targets, dtype=np.int64))


def _image_folder(settings: DataSettings, spec: DatasetSpec, train: bool) -> ImageFiles:
    root = _image_folder_root(settings)
    classes = _class_names(root / "train")
    if len(classes) != spec.num_classes:
        raise DataError(
            f"image_folder: {root / 'train'} has {len(classes)} class folders, but the recipe's "
            f"data section says num_classes = {spec.num_classes}."
        )
    training = ImageFiles(root / "train", classes)
    folder = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if train:
        if (tested := _try_images(folder)) is not None:
            _check_apart(tested, training, root)  # before a training, not behind it
        return training
    if folder is None:
        raise DataError(
            f"image_folder: {root} has no test images. Put them into val/CLASS/ "
            f"(or validation/CLASS/ or test/CLASS/), with the classes of train/."
        )
    different = sorted(set(classes) ^ set(_class_names(folder)))
    if different:
        raise DataError(
            f"image_folder: the class folder '{different[0]}' is in only one of {root / 'train'} "
            f"and {folder}; both must have the same classes."
        )
    images = ImageFiles(folder, classes)
    _check_apart(images, training, root)
    return images


def _try_images(folder: FilePath | None) -> ImageFiles | None:
    """Return the images of a test set, if it is as it should be: else only a test needs to know."""
    try:
        return None if folder is None else ImageFiles(folder, class_names(folder))
    except DataError:
        return None


def _check_apart(tested: ImageFiles, training: ImageFiles, root: FilePath) -> None:
    """Refuse a test set that has a file of the training set. Raises DataError."""
    if file := tested.find_common(training):
        raise DataError(
            f"image_folder: {file} is in {root / 'train'} as well, so that a test of it would tell "
            "nothing. Remove one of them."
        )


def _image_folder_root(settings: DataSettings) -> FilePath:
    if settings.root is None:
        raise DataError(
            "image_folder: the recipe's data section needs 'root', a folder with train/CLASS/*.jpg "
            "and val/CLASS/*.jpg."
        )
    return FilePath(settings.root)


def _class_names(folder: FilePath) -> list[str]:
    names = class_names(folder)
    if not names:
        raise DataError(
            f"image_folder: {folder} has no class folders. The root must have train/CLASS/*.jpg "
            "and val/CLASS/*.jpg."
        )
    return names


@contextlib.contextmanager
def _download_lock(root: FilePath) -> Iterator[None]:
    """Let one process at a time look for files and download them: trials start together."""
    with contextlib.ExitStack() as stack:
        # Without it where the folder cannot be written, or has no locks, or the lock is another
        # user's: nobody is kept from images that are there.
        with contextlib.suppress(OSError):
            refusal = DataError(f"{root}: another process is downloading into it.")
            stack.enter_context(exclusive(root / ".download.lock", timeout=-1, refusal=refusal))
        yield


@contextlib.contextmanager
def _explained_download(name: str, root: FilePath) -> Iterator[None]:
    """Turn whatever a failed download raises into one line; keep standard output clean."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (
        OSError,
        EOFError,
        RuntimeError,
        HTTPException,
        tarfile.TarError,
        zlib.error,
    ) as problem:
        raise DataError(
            f"{name}: could not be downloaded to {root} ({one_line(problem)}). Check the network "
            "and the folder, or set 'root' in the recipe's data section to a folder with the files."
        ) from None
