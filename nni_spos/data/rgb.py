"""Images of any kind as 8-bit RGB, or a refusal: what Pillow converts, it can also cut off."""

from __future__ import annotations

import numpy as np
from PIL import Image

FULL = 65535
"""White in 16 bits."""
_BITS, _PHOTOMETRIC, _FORMAT, _WHITE_IS_ZERO, _SIGNED = 258, 262, 339, 0, 2
"""Tags of TIFF files, and values of the last two."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as RGB.

    Grey values of 16 bits are scaled by their range (12 bits where a TIFF file says so), floats
    from the range 0 to 1.

    Parameters
    ----------
    image
        As ``Image.open`` returns it.

    Raises
    ------
    ValueError
        Its range is not known, or what would be seen through transparent pixels is not.
    """
    if (white := white_of(image)) is not None:
        return _scale(image, white)
    _refuse_signs(image)
    if image.has_transparency_data:
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        if lowest != 255:
            raise ValueError(
                "some of its pixels are transparent, and what is behind them is not known. Put it "
                "on a background first"
            )
    return image.convert("RGB")


def white_of(image: Image.Image) -> float | None:
    """Return which value of a grey image of more than 8 bits is white; None for all other images.

    Raises ValueError if its range is not known.
    """
    if image.mode == "F":
        return _float_range(image)
    if image.mode == "I" or image.mode.startswith("I;"):
        return _whole_range(image)
    return None


def is_deep(image: Image.Image) -> bool:
    """Whether the values of an image, not loaded yet, have more than 8 bits."""
    tiles = getattr(image, "tile", ())
    return image.mode[0] in "FI" or any(";16" in str(tile[3]) for tile in tiles)


def _refuse_signs(image: Image.Image) -> None:
    """Refuse colours that Pillow cuts off: of 16 bits it takes the high byte."""
    if image.format == "TIFF" and _SIGNED in tuple(image.tag_v2.get(_FORMAT, ())):  # type: ignore[attr-defined]
        raise ValueError("its values have a sign. Save them without")
    if is_deep(image) and not any(high for _, high in image.convert("RGB").getextrema()):  # type: ignore[misc]
        raise ValueError(
            "its values have 16 bits, but none is above 255: it would be all black, or its range "
            "is another one. Scale it to 65535, or save 8 bits"
        )


def _scale(image: Image.Image, white: float) -> Image.Image:
    if "transparency" in image.info:
        raise ValueError("one of its grey values is transparent. Put it on a background first")
    levels = np.asarray(image, np.float32) * (255.0 / white)
    return Image.fromarray(np.rint(levels).astype(np.uint8)).convert("RGB")


def _float_range(image: Image.Image) -> float:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise ValueError("some of its values are not finite")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise ValueError(
            f"its values are floats from {low:g} to {high:g}; known is only what 0 to 1 mean. "
            "Scale them, or save 8 bits"
        )
    _refuse_negatives(image)
    return 1.0


def _whole_range(image: Image.Image) -> int:
    """Return which value is white."""
    white = FULL
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError(
            "its values are whole numbers of 32 bits, or signed, whose range is not known. Save 8 "
            "or 16 bits without sign"
        )
    if image.format == "TIFF":
        bits = int(image.tag_v2.get(_BITS, (16,))[0])  # type: ignore[attr-defined]
        white = 2**bits - 1
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise ValueError(f"its values reach from {low} to {high}, and 0 to {white} are allowed")
    if 0 < high < 256:
        raise ValueError(
            f"its values have 16 bits, but the largest is {high}: it would be all black, or its "
            "range is another one. Scale it to 65535, or save 8 bits"
        )
    _refuse_negatives(image)
    return white


def _refuse_negatives(image: Image.Image) -> None:
    """Refuse films that Pillow inverts only with 8 bits."""
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
        raise ValueError("its value 0 is white (TIFF's WhiteIsZero). Save it with black as 0")
