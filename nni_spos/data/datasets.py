"""Open the data set that a recipe names: what is known about it, then its images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from nni_spos.data.pixels import BITS, COLOUR, advise_bits, as_promised, pixel_type
from nni_spos.data.samples import SampleStore
from nni_spos.data.skipping import readable
from nni_spos.data.stores import ImageStore, ImageTensor, ListedFiles
from nni_spos.data.targets import as_targets, find_problem
from nni_spos.errors import DataError, ImagesWarning
from nni_spos.recipe.data_settings import BGR, DataSettings
from nni_spos.recipe.dataset import (
    Dataset,
    DatasetSpec,
    explained,
    find_dataset,
    is_ours,
    resolved_spec,
)
from nni_spos.recipe.datasets import DATASETS
from nni_spos.recipe.image_size import height_width

NO_TEST = "Set 'num_test' in the recipe's data section to hold out images of its training set."


def dataset_spec(settings: DataSettings) -> DatasetSpec:
    """Describe the data set of a recipe; only an image folder's class folders may be listed.

    Raises
    ------
    RecipeError
        There is no such data set, or it cannot be imported.
    DataError
        `num_classes` contradicts the data set, or is not given for an image folder whose training
        folder is missing; or `crop_pct` is given for another data set.

    Examples
    --------
    >>> dataset_spec(DataSettings("fashion_mnist")).image_size
    28
    """
    DATASETS.find(settings.name, settings.folder)  # also refuses a name of several
    dataset = find_dataset(settings)
    if not dataset.says_when_images_change:
        text = (
            f"data set {settings.name}: does not say when its images change. Results are taken to "
            "be of today's, whatever these are. Let it have a method digest_training_images."
        )
        warnings.warn(text, ImagesWarning, stacklevel=2)
    spec = resolved_spec(dataset)
    if settings.crop_pct is not None and spec.native_size is not None:
        raise DataError(
            f"crop_pct: the images of {spec.name} are not cropped. Only those of image_folder are."
        )
    if settings.num_classes not in (None, spec.num_classes):
        raise DataError(
            f"{spec.name} has {spec.num_classes} classes, but the recipe's data section says "
            f"num_classes = {settings.num_classes}."
        )
    if not spec.num_classes:
        with explained(settings):
            dataset.open_training_set()  # says what is missing
        raise DataError(f"data set {spec.name}: its spec() says that there are no classes.")
    if spec.is_prepared:
        _refuse_preparation(settings, spec)
    _check_pixels(settings, spec)
    return spec


def _check_pixels(settings: DataSettings, spec: DatasetSpec) -> None:
    """Refuse bits, channels or a normalisation that do not go together. Raises DataError."""
    if spec.bits not in BITS:
        raise DataError(f"data set {spec.name}: its spec() says {spec.bits} bits; must be 8 or 16.")
    for key in ("channels", "bits"):
        said, found = getattr(settings, key), getattr(spec, key)
        if said not in (None, found):
            raise DataError(
                f"data.{key}: is {said}, and the images of {spec.name} have {found}. Leave it out: "
                "it is for images that are read from files."
            )
    if spec.channel_order == BGR and spec.channels != COLOUR:
        raise DataError(
            f"data.channel_order: is {BGR}, and the images of {spec.name} have {spec.channels} "
            f"channels. It is for images of {COLOUR}."
        )
    for key in ("mean", "std"):
        number = len(getattr(spec, key))
        if number == spec.channels:
            continue
        if getattr(settings, key) is not None:
            raise DataError(
                f"data.{key}: has {number} values; the images of {spec.name} have "
                f"{spec.channels} channels, so it must have {spec.channels}."
            )
        raise DataError(
            f"data set {spec.name}: its spec() has {len(spec.mean)} values of mean and "
            f"{len(spec.std)} of std; must be {spec.channels}, one for each channel."
        )
    if any(not x > 0 for x in spec.std):
        raise DataError(f"data set {spec.name}: its spec() says std = {spec.std}; must be above 0.")


def open_training_set(settings: DataSettings, spec: DatasetSpec) -> ImageStore:
    """Open all labelled images that may be seen before the final test.

    Raises
    ------
    DataError
        The files are missing (the message says where they were looked for and how to get them),
        damaged, or hold other images or another number of classes than `spec` says.
    """
    dataset = find_dataset(settings)
    for key in dataset.ignored:
        if getattr(settings, key):
            warnings.warn(f"data: '{key}' is ignored for {settings.name}.", stacklevel=3)
    return _opened(dataset, spec, dataset.open_training_set, is_required=True)


def open_validation_set(settings: DataSettings, spec: DatasetSpec) -> ImageStore | None:
    """Open the images that a search scores with, if the data set has such a set of its own.

    Raises DataError like `open_training_set`.
    """
    dataset = find_dataset(settings)
    return _opened(dataset, spec, dataset.open_validation_set)


def open_test_set(settings: DataSettings, spec: DatasetSpec) -> ImageStore:
    """Open the test set. Raises DataError like `open_training_set`, or if there is none."""
    dataset = find_dataset(settings)
    found = _opened(dataset, spec, dataset.open_test_set)
    if found is None:
        raise DataError(f"data set {spec.name}: has no test set. {NO_TEST}")
    return found


def _refuse_preparation(settings: DataSettings, spec: DatasetSpec) -> None:
    """Refuse what would prepare images again that the network gets as they are."""
    for key, value in (
        ("image_size", settings.image_size not in (None, spec.native_size)),
        ("augmentation", spec.augmentation != "none"),
        ("mean", settings.mean is not None),
        ("normalisation", settings.normalisation is not None),
        ("channel_order", settings.channel_order == BGR),
        ("bits", settings.bits is not None),
    ):
        if value:
            raise DataError(
                f"{key}: the images of {spec.name} are float tensors, which the network gets as "
                "they are. Let the data set do this, or have it give uint8 or Pillow images."
            )


@overload
def _opened(
    dataset: Dataset, spec: DatasetSpec, method: Callable[[], Any], *, is_required: Literal[True]
) -> ImageStore: ...


@overload
def _opened(
    dataset: Dataset, spec: DatasetSpec, method: Callable[[], Any]
) -> ImageStore | None: ...


def _opened(
    dataset: Dataset, spec: DatasetSpec, method: Callable[[], Any], *, is_required: bool = False
) -> ImageStore | None:
    """Open a part of a data set, and refuse one that is not what its spec says.

    None: there is no such part. Raises DataError.
    """
    with explained(dataset.settings):
        found = method()
        if found is None and not is_required:
            return None
        if problem := _problem(found, spec, dataset.settings):
            raise DataError(f"data set {spec.name}: {method.__name__} returned {problem}.")
        store = found if isinstance(found, ImageStore) else _in_memory(*found)
        if dataset.settings.on_error == "skip" and isinstance(store, ListedFiles):
            name = f"data set {spec.name}: {method.__name__}"
            store = _readable(store, name)
        return store


def _readable(store: ListedFiles, name: str) -> ListedFiles:
    return store.only(readable(store.check, len(store.targets), name))


def _in_memory(images: Any, targets: Any) -> ImageTensor:
    return ImageTensor(torch.as_tensor(images), as_targets(targets))


def _problem(found: Any, spec: DatasetSpec, settings: DataSettings) -> str:
    """Return what is wrong with opened images, or ""."""
    where: Callable[[int], str] = getattr(found, "name_of", str)
    says = "its spec() says" if settings.num_classes is None else "num_classes says"
    if isinstance(found, ImageStore):
        targets, first = found.targets, np.zeros(1, np.int64)
        is_looked_at = is_ours(settings) or isinstance(found, SampleStore) or not len(targets)
        images = None if is_looked_at else as_promised(found.read(first), spec, first)
    elif isinstance(found, tuple) and len(found) == 2 and all(hasattr(x, "shape") for x in found):
        images, targets = torch.as_tensor(found[0]), np.asarray(found[1])
        if len(targets.shape) < 1 or len(targets) != len(images):
            return f"{len(images)} images and targets of shape {targets.shape}"
    else:
        return f"a {type(found).__name__}; must be (images, targets), or an ImageStore"
    if not len(targets):
        return "no images"
    # Masks in files are looked at when they are read.
    if isinstance(targets, np.ndarray) and (problem := find_problem(targets, spec, where, says)):
        return problem
    if isinstance(images, Tensor):
        size = tuple(images.shape[2:]) if spec.native_size is None else spec.native_size
        wanted = (spec.channels, *height_width(size))
        if images.dtype != pixel_type(spec) or images.ndim != 4 or images.shape[1:] != wanted:
            return (
                f"images of shape {tuple(images.shape)}, {images.dtype}; must be of shape "
                f"(N, {', '.join(map(str, wanted))}), {pixel_type(spec)}, as its spec() says"
                f"{advise_bits(images.dtype, spec)}"
            )
    return ""
