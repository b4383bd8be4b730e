"""What a network takes: the images that a trained network's file describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.errors import CheckpointError
from nni_spos.recipe.image_size import height_width, read_size
from nni_spos.values import is_finite, shown

BITS = (8, 16)


@dataclass(frozen=True)
class InputImages:
    """The images that a network takes.

    Parameters
    ----------
    channels, height, width
        Of one image.
    bits
        Of a pixel: 8 or 16.
    mean, std
        Of each channel, of values in [0, 1].
    resize
        What images are resized to before their centre is cropped: (height, width) that must be
        covered, or the length of the shorter side.
    is_prepared
        Whether the network takes float images as they are.
    """

    channels: int
    height: int
    width: int
    bits: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | tuple[int, int]
    is_prepared: bool = False

    @classmethod
    def read(cls, preprocessing: Mapping[str, Any]) -> InputImages:
        """Read `nni_spos.data.ImageData.preprocessing`, as a file has it.

        Raises
        ------
        CheckpointError
            Something in it is missing or is not what it should be.
        """
        try:
            height, width = height_width(read_size(preprocessing["image_size"]))
            found = cls(
                channels=preprocessing["channels"],
                height=height,
                width=width,
                bits=preprocessing["bits"],
                mean=tuple(preprocessing["mean"]),
                std=tuple(preprocessing["std"]),
                resize=read_size(preprocessing["eval_resize"]),
                is_prepared=preprocessing.get("is_prepared") is True,
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise CheckpointError(
                f"the file does not say how its images were prepared ({problem!r:.200})."
            ) from None
        fits = len(found.mean) == len(found.std) == found.channels
        numbers = (*found.mean, *found.std)
        if not fits or found.bits not in BITS or not all(map(is_finite, numbers)):
            raise CheckpointError(
                f"the file says that images have {shown(found.channels)} channels of "
                f"{shown(found.bits)} bits, mean {shown(found.mean)} and std {shown(found.std)}."
            )
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return (self.channels, self.height, self.width)

    @property
    def largest(self) -> int:
        """The largest value of a pixel, which stands for 1."""
        return 2**self.bits - 1

    @property
    def pixel_type(self) -> str:
        """NumPy's name of the type of pixels."""
        return f"uint{self.bits}"

    def normalised(self, pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return pixels, shape (N, channels, height, width), as the network takes them."""
        if self.is_prepared:
            return pixels.astype(np.float32)
        mean, std = (np.array(x, np.float32)[:, None, None] for x in (self.mean, self.std))
        # As `nni_spos.data.transforms.Normalisation` computes it.
        scale, offset = 1 / (np.float32(self.largest) * std), -mean / std
        return pixels.astype(np.float32) * scale + offset

    def pixels_of(self, values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return the pixels of images that were normalised."""
        mean, std = (np.array(x, np.float64)[:, None, None] for x in (self.mean, self.std))
        levels = np.rint((values * std + mean) * self.largest)
        return levels.clip(0, self.largest).astype(self.pixel_type)

    def random(self, number: int, seed: int = 0) -> npt.NDArray[np.float32]:
        """Return noise as the network takes it, shape (number, channels, height, width)."""
        generator = np.random.default_rng(seed)
        shape = (number, *self.shape)
        if self.is_prepared:
            return generator.standard_normal(shape, dtype=np.float32)
        return self.normalised(generator.integers(0, self.largest + 1, shape))
