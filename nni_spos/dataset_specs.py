"""What is known about the data sets without opening their files, and without PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath

from nni_spos.recipe import DataSettings

TEST_FOLDERS = ("val", "validation", "test")
"""Folders of an image folder that may have its test images; the first that is there has them."""

DEBIAN_FASHION_MNIST = FilePath("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class DatasetSpec:
    """What is known about a data set before any of its files is opened.

    Parameters
    ----------
    name
        As in the recipe.
    num_classes
        Number of classes.
    channels
        1 for grey, 3 for RGB images.
    native_size
        Height and width of the stored images in pixels; None where every image has its own.
    image_size
        Height and width that the network gets, in pixels.
    mean, std
        Of each channel, values scaled to [0, 1].
    augmentation
        Of training images: none, shift, crop_flip or imagenet.
    crop_pct
        Share of the shorter side of a resized image that the crop of its centre takes.
    """

    name: str
    num_classes: int
    channels: int
    native_size: int | None
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    crop_pct: float = 1.0

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """What the network gets for one image: (channels, height, width)."""
        return (self.channels, self.image_size, self.image_size)


SPECS = {
    spec.name: spec
    for spec in (
        DatasetSpec("digits", 10, 1, 8, 16, (0.3054,), (0.3760,), "shift"),
        DatasetSpec("fashion_mnist", 10, 1, 28, 28, (0.2860,), (0.3530,), "crop_flip"),
        DatasetSpec(
            "cifar10",
            10,
            3,
            32,
            32,
            (0.4914, 0.4822, 0.4465),
            (0.2470, 0.2435, 0.2616),
            "crop_flip",
        ),
        # Its number of classes is that of the user's folders; 0 is never returned.
        DatasetSpec(
            "image_folder",
            0,
            3,
            None,
            224,
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
            "imagenet",
            crop_pct=224 / 256,
        ),
    )
}
"""By the name that recipes use."""


def class_names(folder: FilePath) -> list[str]:
    """Return the names of the folders in a folder, in order; none if it is not there."""
    try:
        with os.scandir(folder) as entries:
            return sorted(x.name for x in entries if x.is_dir() and not x.name.startswith("."))
    except OSError:
        return []


def dataset_root(data: DataSettings) -> FilePath:
    """Return where torchvision's data sets are: the recipe's root, else the user's cache."""
    if data.root is not None:
        return FilePath(data.root)
    cache = os.environ.get("XDG_CACHE_HOME") or FilePath.home() / ".cache"
    return FilePath(cache) / "nni_spos" / "datasets"


def find_idx(root: FilePath, names: tuple[str, str]) -> tuple[FilePath, FilePath] | None:
    """Find the image and the label file: packed or not, plain or in torchvision's folders."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        for suffix in (".gz", ""):
            images, labels = (folder / (name + suffix) for name in names)
            if images.is_file() and labels.is_file():
                return images, labels
    return None
