"""What a recipe says about images and how they are split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.datasets import DATASETS
from nni_spos.recipe.image_size import IMAGE_SIZE, read_size
from nni_spos.recipe.named_components import NamesComponent, Slot
from nni_spos.recipe.settings import (
    BOOL,
    COUNT,
    FILE,
    POSITIVE_INT,
    Rule,
    check_values,
    component,
    list_of,
    one_of,
    optional,
    real,
    setting,
)
from nni_spos.values import is_finite

AUGMENTATIONS = ("none", "shift", "crop_flip", "imagenet")

FROM_DATA = "from data"
"""Value of `normalisation`: measure mean and standard deviation of the training images."""

NOT_NORMALISED = "none"
"""Value of `normalisation`: the network gets the values of pixels as they are, such as 0 to 255."""

RGB, BGR = "rgb", "bgr"
"""Orders of the colours that a network gets."""

MEANS = list_of(real(0, 1), "a list of numbers from 0 to 1, one for each channel")
STDS = list_of(
    Rule(
        lambda x: is_finite(x) and 0 < x <= 1,
        "a number > 0",
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    ),
    "a list of numbers above 0 and up to 1, one for each channel",
)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


DECIDE_NOTHING = ("root", "download", "workers", "held_mb")
"""Settings that say where images are, or who reads them, and not what these are."""


@dataclass(frozen=True)
class DataSettings(NamesComponent):
    """Images and how they are split; see `nni_spos.data`.

    Images are decoded once and held in memory. A search puts those that take more than `held_mb`
    into files in the output folder, which all its processes share; a training reads them anew in
    every epoch. So it does where ``imagenet`` augments, which crops whole images.

    Parameters
    ----------
    name
        The data set: one of ours, of an installed plug-in, or module:Class of a module beside the
        recipe.
    root
        Folder of its files.
    download
        Whether to download files that are not there.
    image_size
        Height and width that the network gets, in pixels, [height, width], or one number for both;
        by default those of the data set.
    channels, bits
        Channels of images that are read from files, 1 for grey and 3 for RGB, and bits of their
        values, 8 or 16; by default 3, and 8 to which images of 16 bits are scaled. Other data sets
        say it themselves.
    mean, std
        Mean and standard deviation of each channel, of values in [0, 1]; by default those of the
        data set.
    normalisation
        "from data" measures mean and std of the training images instead; with none the network gets
        0 to 255, or 0 to 65535 of 16 bits.
    channel_order
        Of the colours that the network gets: rgb, or bgr, as networks do that were trained on what
        OpenCV reads. `mean` and `std` are in the order red, green, blue in any case.
    num_classes
        Number of classes, where the data set does not say it.
    crop_pct
        Share of the shorter side of a resized image that the crop of its centre takes. Of images
        that have sizes of their own; by default 0.875, as 224 of 256 pixels, and 1 for images that
        are cropped already. The name is timm's.
    augmentation
        Of training images; by default that of the data set.
    num_train
        Number of training images; by default all that are left.
    num_validation
        Number of images of the training set that a search scores with; by default a tenth of it, at
        most 50,000.
    num_test
        Number of images of the training set that are held out for the final test, of a data set
        that has no test set of its own.
    split_seed
        Decides which images validate; those of the final test are always the same ones.
    on_error
        What an image that cannot be read does: raise an error, or skip, which tries all images
        first, leaves out those and counts them.
    workers
        Processes that read images; 0 for none but the training's own.
    held_mb
        How much memory decoded images may take, in MB of 2^20 bytes.
    """

    slot = Slot(DATASETS, "data", "name")

    name: str = component(DATASETS)
    root: str | None = setting(optional(FILE), None)
    download: bool = setting(BOOL, False)
    image_size: int | tuple[int, int] | None = setting(optional(IMAGE_SIZE), None, read_size)
    channels: int | None = setting(optional(POSITIVE_INT), None)
    bits: int | None = setting(optional(one_of(8, 16)), None)
    mean: tuple[float, ...] | None = setting(optional(MEANS), None, _floats)
    std: tuple[float, ...] | None = setting(optional(STDS), None, _floats)
    normalisation: str | None = setting(optional(one_of(FROM_DATA, NOT_NORMALISED)), None)
    channel_order: str = setting(one_of(RGB, BGR), RGB)
    num_classes: int | None = setting(optional(POSITIVE_INT), None)
    crop_pct: float | None = setting(optional(real(0.1, 1)), None)
    augmentation: str | None = setting(optional(one_of(*AUGMENTATIONS)), None)
    num_train: int | None = setting(optional(POSITIVE_INT), None)
    num_validation: int | None = setting(optional(POSITIVE_INT), None)
    num_test: int | None = setting(optional(POSITIVE_INT), None)
    split_seed: int = setting(COUNT, 0)
    on_error: str = setting(one_of("raise", "skip"), "raise")
    workers: int = setting(COUNT, 0)
    held_mb: int = setting(COUNT, 2048)

    def __post_init__(self) -> None:
        check_values(self)
        DATASETS.check_name(self.name)
        if self.root is not None:
            object.__setattr__(self, "root", self.locate(self.root))
        self._check_normalisation()
        self.check_own()

    def locate(self, file: str | os.PathLike[str]) -> str:
        """Return the name of a file or folder that a recipe names relative to its own folder."""
        return os.path.join(self.folder or "", os.path.expanduser(file))

    def own(self) -> Any:
        """Return the data set, see `nni_spos.recipe.dataset.find_dataset`; this imports it."""
        where = f"{self.slot.registry.kind} {self.name}"
        found, given = self.slot.check(type(self), self.name, self.arguments, where, self.folder)
        return found(self, **given)

    def _check_normalisation(self) -> None:
        """Refuse half of a normalisation, or two of them. Raises RecipeError."""
        if (self.mean is None) != (self.std is None):
            raise RecipeError("give both 'mean' and 'std', or neither.")
        if self.mean is None or self.std is None:
            return
        if len(self.mean) != len(self.std):
            raise RecipeError(
                f"mean has {len(self.mean)} values and std {len(self.std)}; give one for each "
                "channel."
            )
        if self.normalisation is not None:
            raise RecipeError(f"give 'mean' and 'std', or 'normalisation: {self.normalisation}'.")

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the images, and not where they are or who reads them."""
        keys = [x.name for x in dataclasses.fields(self) if x.metadata]
        values = {key: getattr(self, key) for key in keys if key not in DECIDE_NOTHING}
        return {**values, **self.describe_own()}
