"""Masks: the class of each pixel, in files beside the images, transformed together with these."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.tv_tensors import Mask

from nni_spos.data.folders import find_images
from nni_spos.data.pixels import COLOUR
from nni_spos.data.stores import DAMAGED, ImageIndices, ListedFiles
from nni_spos.data.transforms import ImageTransform, Keys
from nni_spos.errors import DataError, text_of
from nni_spos.recipe.dataset import IGNORED

IMAGES, MASKS = "images", "masks"
"""Folders beside each other that have the same names of files, but for their endings."""


class MaskFiles:
    """Masks that are decoded when they are needed: what stands in a store for their array.

    Parameters
    ----------
    files
        One for each image.
    num_classes
        Larger values, but for the ignored one, are refused.
    """

    def __init__(self, files: npt.ArrayLike, num_classes: int):
        self.files = np.array(files)
        self.num_classes = num_classes
        self.shape = self.files.shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: ImageIndices) -> list[npt.NDArray[np.uint8]]:
        return [self._decode(str(file)) for file in self.files[indices]]

    def only(self, indices: ImageIndices) -> MaskFiles:
        """Return some of the masks."""
        return MaskFiles(self.files[indices], self.num_classes)

    def _decode(self, file: str) -> npt.NDArray[np.uint8]:
        try:
            with Image.open(file) as image:
                if image.mode not in ("L", "P", "1"):
                    raise ValueError(
                        f"its mode is {image.mode}; the value of a pixel must be the number of "
                        "its class, in 8 bits, as grey or with a palette"
                    )
                found = np.asarray(image).astype(np.uint8)
        except (*DAMAGED, Image.DecompressionBombError) as problem:
            raise DataError(f"{file}: cannot be read as a mask ({text_of(problem)}).") from None
        outside = (found >= self.num_classes) & (found != IGNORED)
        if outside.any():
            y, x = np.argwhere(outside)[0]
            raise DataError(
                f"{file}: has the class {found[y, x]} at x {x}, y {y}; num_classes says "
                f"{self.num_classes}, 0 to {self.num_classes - 1}, and {IGNORED} for pixels that "
                "do not count."
            )
        return found


class MaskedFiles(ListedFiles):
    """Image files with a mask for each.

    Parameters
    ----------
    folder
        Where the images are.
    names
        Of the images, below the folder.
    masks
        In their order.
    channels, bits
        Of the images, see `nni_spos.data.decoding.decode`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        names: Sequence[str],
        masks: MaskFiles,
        channels: int = COLOUR,
        bits: int | None = None,
    ):
        super().__init__(folder, names, np.zeros(0), channels=channels, bits=bits)
        self.targets: Any = masks

    def only(self, indices: ImageIndices) -> MaskedFiles:
        """Return some of the files."""
        names = [self.name_of(i) for i in indices]
        place, masks = os.fsdecode(self._folder), self.targets.only(indices)
        return MaskedFiles(place, names, masks, *self._decoded_as)

    def check(self, index: int) -> None:
        """Read an image and its mask. Raises DataError if either cannot be used."""
        (image,), (mask,) = self.read(np.array([index])), self.targets[np.array([index])]
        check_size(image, mask, self.name_of(index))

    def digest(self, indices: ImageIndices) -> str:
        """Return what tells these files and their masks from any others."""
        masks = ListedFiles("", self.targets.files, np.zeros(0))
        return super().digest(indices) + masks.digest(indices)


def open_masked(
    folder: str, num_classes: int, channels: int = COLOUR, bits: int | None = None
) -> MaskedFiles:
    """Open the images and masks of a folder.

    Parameters
    ----------
    folder
        Has the folders ``images`` and ``masks``.
    num_classes
        Of a pixel.
    channels, bits
        Of the images, see `nni_spos.data.decoding.decode`.

    Raises
    ------
    DataError
        An image lacks a mask, or a mask an image.
    """
    images, masks = (
        {os.path.splitext(x)[0].partition(os.sep)[2]: x for x in find_images(folder, [name])[0]}
        for name in (IMAGES, MASKS)
    )
    if alone := sorted(images.keys() ^ masks.keys()):
        place = MASKS if alone[0] in images else IMAGES
        raise DataError(f"{os.path.join(folder, place)}: has no file for '{alone[0]}'. Add it.")
    files = [os.path.join(folder, masks[stem]) for stem in images]
    masks_of = MaskFiles(files, num_classes)
    return MaskedFiles(folder, list(images.values()), masks_of, channels, bits)


def check_size(image: Any, mask: npt.NDArray[Any], name: str) -> None:
    """Refuse a mask that is not of the size of its image, which is called `name`.

    Raises DataError.
    """
    size = image.shape[-2:] if isinstance(image, Tensor) else image.size[::-1]
    if tuple(size) != tuple(mask.shape):
        raise DataError(
            f"the mask of image {name} has {mask.shape[1]} x {mask.shape[0]} pixels, its image "
            f"{size[1]} x {size[0]}. Both must have the same."
        )


def prepare(
    transform: ImageTransform,
    images: Any,
    masks: Any,
    indices: ImageIndices,
    keys: Keys | None,
    name_of: Callable[[int], str] = str,
) -> tuple[Tensor, Tensor]:
    """Return images and masks of one size, transformed alike.

    Parameters
    ----------
    transform
        From stored images to the network's input.
    images
        As a store has them.
    masks
        Whole numbers: an array of shape (N, H, W), or a list of arrays of shape (H, W).
    indices
        Positions of the images in the data set.
    keys
        Of the augmentation; None: prepare for evaluation.
    name_of
        Returns what the image of a position is called, for messages.

    Returns
    -------
    What the transform returns for the images, shape (N, C, H, W); and masks, int64, shape
    (N, H, W), by the nearest pixel. What is shifted into the image does not count.

    Raises
    ------
    DataError
        A mask is not of the size of its image.
    """
    for image, mask, index in zip(images, masks, indices, strict=True):
        check_size(image, mask, name_of(index))
    found: Any = [Mask(torch.as_tensor(np.asarray(mask))[None]) for mask in masks]
    if isinstance(images, Tensor):
        found = Mask(torch.stack(found))
    if keys is None:
        pixels, labels = transform.evaluation(images), transform.evaluation(found)
    else:
        pixels, labels = transform.training(images, keys), transform.training_masks(found, keys)
    return pixels, labels.as_subclass(Tensor)[:, 0].long()
