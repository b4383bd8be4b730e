"""Image files as pixels of some channels and bits."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import decode_image

from nni_spos.data.pixels import COLOUR, GREY
from nni_spos.data.rgb import FULL, is_deep, to_rgb, white_of

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R 601-2), as Pillow has them."""

_TRANSPARENT = (
    "some of its pixels are transparent, and what is behind them is not known. Put it on a "
    "background first"
)


def decode(image: Image.Image, channels: int, bits: int | None) -> Image.Image | Tensor:
    """Return an image file as grey or RGB pixels.

    Parameters
    ----------
    image
        As ``Image.open`` returns it.
    channels
        1 for grey, 3 for RGB.
    bits
        Of a value. None: 8, to which deeper images are scaled. 8: deeper images are refused.

    Returns
    -------
    Of 8 bits an image of Pillow's, in ``L`` or ``RGB``; of 16 bits uint16, shape (channels, H, W),
    in which 65535 is white. No value of a 16-bit file is changed.

    Raises
    ------
    ValueError
        Its range is not known, it has transparent pixels, or more bits than `bits`.
    """
    if bits == 16:
        return _deep(image, channels)
    if bits == 8 and is_deep(image):
        raise ValueError(
            "its values have 16 bits, and the recipe's data section says bits: 8. Say bits: 16, or "
            "leave bits out to scale them to 8"
        )
    found = to_rgb(image)
    return found.convert("L") if channels == GREY else found


def _deep(image: Image.Image, channels: int) -> Tensor:
    white = white_of(image)
    if white is not None:
        if "transparency" in image.info:
            raise ValueError(_TRANSPARENT)
        levels = np.asarray(image, np.float64)[None]
        # Where white is 65535 this is exact.
        levels = np.rint(levels * (FULL / white))
    elif is_deep(image):
        levels = _colours(image)
    else:
        levels = np.asarray(to_rgb(image), np.float64).transpose(2, 0, 1) * (FULL // 255)
    if channels == GREY and len(levels) == COLOUR:
        equal = (levels[0] == levels[1]).all() and (levels[1] == levels[2]).all()
        levels = levels[:1] if equal else np.rint(np.tensordot(_LUMA, levels, 1))[None]
    if channels == COLOUR and len(levels) == GREY:
        levels = np.repeat(levels, COLOUR, axis=0)
    return torch.from_numpy(levels.astype(np.uint16))


def _colours(image: Image.Image) -> np.ndarray:
    """Return the colours of a PNG of 16 bits, of which Pillow reads only the high bytes."""
    if image.format != "PNG":
        raise ValueError(
            "its colours have 16 bits, and can be read only from PNG. Save it so, or give arrays "
            "with a data set of your own"
        )
    if "transparency" in image.info:
        raise ValueError(_TRANSPARENT)
    found = decode_image(torch.from_numpy(np.fromfile(image.filename, np.uint8))).numpy()  # type: ignore[attr-defined]
    if len(found) in (2, 4):
        if (found[-1] != FULL).any():
            raise ValueError(_TRANSPARENT)
        found = found[:-1]
    if 0 < found.max() < 256:
        raise ValueError(
            f"its values have 16 bits, but the largest is {found.max()}: it would be all black, or "
            "its range is another one. Scale it to 65535, or save 8 bits"
        )
    return found.astype(np.float64)
