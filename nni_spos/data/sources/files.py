"""What is known about images in files before one is opened: how they are decoded."""

from __future__ import annotations

from typing import TypedDict

from nni_spos.errors import DataError
from nni_spos.recipe.data_settings import DataSettings

IMAGENET = {
    1: ((0.449,), (0.226,)),
    3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of ImageNet's channels, and of their mean, by number of channels."""


class Decoded(TypedDict):
    """Fields of a spec that say how images are decoded."""

    channels: int
    bits: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def decoded_as(settings: DataSettings) -> Decoded:
    """Return what a recipe says about the pixels of image files, or the default.

    Raises
    ------
    DataError
        Files are not read with so many channels.
    """
    channels = settings.channels or 3
    if channels not in IMAGENET:
        raise DataError(
            f"data.channels: image files are read as grey or RGB, so it must be 1 or 3, got "
            f"{channels}. For others bring a data set of your own, which gives arrays."
        )
    mean, std = IMAGENET[channels]
    return Decoded(channels=channels, bits=settings.bits or 8, mean=mean, std=std)
