"""What every data set says without PyTorch, and how the one of a recipe is found.

Which images there are, and whether they have changed, is asked by the tuner and by trials too, so
the module of a data set must not import PyTorch before images are opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from nni_spos.errors import DataError
from nni_spos.recipe.data_settings import NOT_NORMALISED, RGB, DataSettings
from nni_spos.recipe.datasets import DATASETS
from nni_spos.recipe.image_size import ImageSize, height_width, read_size

TARGETS = ("class", "labels", "values", "mask")
"""Kinds of what a network is to predict for an image."""

IGNORED = 255
"""In a mask, a pixel that does not count."""

UNKNOWN = "cannot be known"
"""Instead of a digest, of images whose data set does not say when they change."""


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a data set before any of its images is opened.

    Parameters
    ----------
    name
        As in the recipe.
    num_classes
        Number of classes, labels or values; 0 if only files tell it that are not there: opening
        the training set must then say so.
    channels
        1 for grey, 3 for RGB images, or any other number.
    native_size
        Height and width of the stored images in pixels, (height, width), or one number for both;
        None where every image has its own.
    image_size
        Height and width that the network gets, in the same form.
    mean, std
        Mean and standard deviation of each channel, of values in [0, 1].
    augmentation
        How training images are varied: none, shift, crop_flip or imagenet.
    crop_pct
        Share of the shorter side of a resized image that the crop of its centre takes.
    target
        What there is to predict for each image: its ``class``, a whole number; ``labels``, of which
        each is 0 or 1; ``values``, real numbers; or a ``mask``, the class of each pixel.
    is_prepared
        Whether the network gets the images exactly as they are: float, normalised already.
    bits
        Of a value: 8, or 16 for images of uint16, whose largest value stands for 1.
    channel_order
        Of the colours that the network gets, rgb or bgr; `mean` and `std` are those of red, green
        and blue in any case.
    """

    name: str
    num_classes: int
    channels: int
    native_size: ImageSize | None
    image_size: ImageSize
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str = "none"
    crop_pct: float = 1.0
    target: str = "class"
    is_prepared: bool = False
    bits: int = 8
    channel_order: str = RGB

    def __post_init__(self) -> None:
        # A square has one form, so that sizes can be compared.
        object.__setattr__(self, "image_size", read_size(self.image_size))
        if self.native_size is not None:
            object.__setattr__(self, "native_size", read_size(self.native_size))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """What the network gets for one image: (channels, height, width)."""
        return (self.channels, *height_width(self.image_size))

    @property
    def largest(self) -> int:
        """The largest value of a pixel, which stands for 1."""
        return 2**self.bits - 1


@dataclass(frozen=True)
class Dataset(ABC):
    """Labelled images that a recipe names.

    A data set has two parts. The *training set* is divided into the training and the
    search-validation split, unless the data set has a *validation set* of its own; the *test set*
    is opened by a method of its own, so that nothing reads it by accident.

    A class derived from this one is a frozen dataclass too. The keys that a recipe may give it,
    besides those that every data set has, are its fields that
    `nni_spos.recipe.settings.setting` makes. Its module is imported by NNI's tuner, which has ten
    seconds to start: import PyTorch and the like in the methods that open images.

    Parameters
    ----------
    settings
        The section ``data`` of the recipe; `root` in it is absolute.
    """

    settings: DataSettings

    ignored: ClassVar[tuple[str, ...]] = ("download",)
    """Keys that every data set has, but that mean nothing to this one."""

    places: ClassVar[tuple[str, ...]] = ()
    """Its own keys that say where files are: what is in these counts, and not where they are."""

    @property
    def name(self) -> str:
        """As in the recipe."""
        return self.settings.name

    @abstractmethod
    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image; names of folders may be listed.

        What a recipe says about `image_size`, `augmentation`, `crop_pct`, `mean` and `std` goes
        before this.
        """

    @abstractmethod
    def open_training_set(self) -> Any:
        """Open all labelled images that may be seen before the final test.

        Returns
        -------
        Images, uint8 or uint16 as the spec says, shape (N, C, H, W), and targets, as arrays or
        tensors: classes from 0 on, shape (N,); labels or values, shape (N, num_classes); masks,
        shape (N, H, W), where 255 does not count. Or an `nni_spos.data.stores.ImageStore`, which
        reads images when they are needed.

        Raises
        ------
        DataError
            They are missing or damaged; the message says where they were looked for and what to do.
        """

    def open_validation_set(self) -> Any:
        """Open the images that a search scores with, as `open_training_set`.

        None: they are held out of the training set, as it is by default.
        """
        return None

    @abstractmethod
    def open_test_set(self) -> Any:
        """Open the images of the final test; as `open_training_set`.

        None: there are none, and `has_test_set` says so. A recipe can then have them held out of
        the training set, with `num_test`.
        """

    @property
    def has_test_set(self) -> bool:
        """Whether there are images for the final test."""
        return True

    def missing(self) -> list[str]:
        """Return what its files lack, a sentence each, for those who check a recipe before."""
        return []

    def class_names(self) -> Sequence[str]:
        """Return the names of the classes, labels or values, in their order; none: not known."""
        return ()

    @property
    def says_when_images_change(self) -> bool:
        """Whether a digest says so."""
        return type(self).digest_training_images is not Dataset.digest_training_images

    def digest_training_images(self) -> str | None:
        """Return what tells the images of the training set, and their targets, from any others.

        Those of a validation set of its own are among them.

        Where the files are must not count. None: they are always the same ones, or are not there
        yet. By default nobody knows: results are then taken to be of today's images whatever these
        are, and ``nni-spos check`` says so.
        """
        return UNKNOWN

    def digest_test_images(self) -> str | None:
        """Return what tells the images of the test set from any others; see above."""
        return UNKNOWN


def is_ours(settings: DataSettings) -> bool:
    """Whether a data set is one of this package."""
    return settings.name in DATASETS.ours


def find_dataset(settings: DataSettings) -> Dataset:
    """Return the data set that a recipe names; of a user's, this runs its module.

    Raises
    ------
    RecipeError
        See `nni_spos.recipe.named_components.Slot.check`.
    """
    with explained(settings):
        return settings.own()


def explained(settings: DataSettings) -> contextlib.AbstractContextManager[None]:
    """Turn whatever the code of a user's data set raises into one line. Raises DataError."""
    return DATASETS.explained(settings.name, settings.folder, DataError, what="")


def resolved_spec(dataset: Dataset) -> DatasetSpec:
    """Return the spec of a data set with what its recipe says about its images.

    Raises
    ------
    DataError
        A user's data set fails, or returns no spec.
    """
    settings = dataset.settings
    with explained(settings):
        spec = dataset.spec()
    if not isinstance(spec, DatasetSpec):
        raise DataError(
            f"data set {settings.name}: spec() returned a {type(spec).__name__}, not a DatasetSpec."
        )
    mean, std = settings.mean or spec.mean, settings.std or spec.std
    if settings.normalisation == NOT_NORMALISED:
        mean, std = (0.0,) * spec.channels, (1 / spec.largest,) * spec.channels
    return dataclasses.replace(
        spec,
        name=settings.name,
        image_size=settings.image_size or spec.image_size,
        augmentation=settings.augmentation or spec.augmentation,
        crop_pct=settings.crop_pct or spec.crop_pct,
        mean=mean,
        std=std,
        channel_order=settings.channel_order,
    )
