"""Stored images as the pixels that their data set promises: channels, bits, type."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from nni_spos.errors import DataError
from nni_spos.recipe.dataset import DatasetSpec

Images: TypeAlias = Tensor | list[Image.Image | Tensor]
"""Images of one size, shape (N, C, H, W), or a list: Pillow's of 8 bits, or of shape (C, H, W)."""

BITS = (8, 16)
"""Bits that a value may have."""

GREY, COLOUR = 1, 3
"""Channels of images that Pillow opens."""


def pixel_type(spec: DatasetSpec) -> torch.dtype:
    """Return PyTorch's type of the values of a data set."""
    if spec.is_prepared:
        return torch.float32
    return {8: torch.uint8, 16: torch.uint16}[spec.bits]


def array_type(spec: DatasetSpec) -> np.dtype[Any]:
    """Return NumPy's type of the values of a data set."""
    return np.dtype(np.float32 if spec.is_prepared else f"uint{spec.bits}")


def as_promised(images: Any, spec: DatasetSpec, indices: npt.NDArray[np.int64]) -> Images:
    """Return images that a store read, arrays as tensors, if they are what their spec says.

    Parameters
    ----------
    images
        A tensor or array of shape (N, C, H, W), or a list of N images: Pillow's, or tensors or
        arrays of shape (C, H, W).
    spec
        Says channels and bits.
    indices
        Positions of the images in their data set, for messages.

    Raises
    ------
    DataError
        An image has another number of channels or another type; the message names the first.
    """
    if isinstance(images, list | tuple):
        return [_promised(x, spec, int(i)) for x, i in zip(images, indices, strict=True)]
    found = torch.as_tensor(images)
    if problem := misfit(tuple(found.shape), found.dtype, spec, dimensions=4):
        raise DataError(_sentence(spec, int(indices[0]), problem))
    return found


def misfit(shape: tuple[int, ...], dtype: torch.dtype, spec: DatasetSpec, dimensions: int) -> str:
    """Return what is wrong with images of some shape and type, or ``""``."""
    channels = shape[-3] if len(shape) == dimensions else None
    if (channels, dtype) == (spec.channels, pixel_type(spec)):
        return ""
    batch = "N, " if dimensions == 4 else ""
    text = (
        f"has shape {shape} and type {dtype}; must have shape ({batch}{spec.channels}, height, "
        f"width) and type {pixel_type(spec)}, as the data set says"
    )
    return text + advise_bits(dtype, spec)


def advise_bits(dtype: torch.dtype, spec: DatasetSpec) -> str:
    """Return what to do with images of the other number of bits, or ``""`` if they are not."""
    others = {torch.uint8: 8, torch.uint16: 16}
    if others.get(dtype, spec.bits) == spec.bits:
        return ""
    return f". If all its images have {others[dtype]} bits, let its spec() say bits={others[dtype]}"


def _promised(image: Any, spec: DatasetSpec, index: int) -> Image.Image | Tensor:
    if isinstance(image, Image.Image):
        if spec.bits == 8 and {"L": GREY, "RGB": COLOUR}.get(image.mode) == spec.channels:
            return image
        array = np.asarray(image)
        image = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    found = torch.as_tensor(np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image)
    if problem := misfit(tuple(found.shape), found.dtype, spec, dimensions=3):
        raise DataError(_sentence(spec, index, problem))
    return found


def _sentence(spec: DatasetSpec, index: int, problem: str) -> str:
    return f"data set {spec.name}: image {index} {problem}."
