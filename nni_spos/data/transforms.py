"""From stored images to the network's input, and the description that goes into checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from nni_spos.data.datasets import DatasetSpec
from nni_spos.errors import CheckpointError

Images: TypeAlias = Tensor | list[Image.Image]
"""uint8 images of one size, shape (N, C, H, W), or decoded files."""

Keys = npt.NDArray[np.uint64]

JITTER = 0.4
"""Strength of the ImageNet augmentation's colour jitter (paper: section 4)."""


def random_keys(seed: int, epochs: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> Keys:
    """Return one well-mixed number for each image, a function of (seed, epoch, index) alone.

    Nothing random is drawn from a generator whose state would have to be kept, or brought to
    worker processes: whatever an image needs is derived from its key.
    """
    keys = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    keys = _mixed(keys ^ epochs.astype(np.uint64))
    return _mixed(keys ^ indices.astype(np.uint64))


def draw(keys: Keys, stream: int, high: int) -> npt.NDArray[np.int64]:
    """Draw a whole number from [0, high) for each key; streams are independent of each other."""
    mixed = _mixed(keys ^ _mixed(np.array([stream], dtype=np.uint64)))
    high_bits = mixed >> np.uint64(32)
    return ((high_bits * np.uint64(high)) >> np.uint64(32)).astype(np.int64)


def _mixed(x: Keys) -> Keys:
    """SplitMix64 (Steele et al., OOPSLA 2014): a bijection that spreads every bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Normalisation:
    """Turn pixels into the network's input: ``(pixels / 255 - mean) / std``.

    Parameters
    ----------
    spec
        Gives mean and standard deviation of each channel, and the size of the images.
    device
        Where the pixels are.
    channels_last
        Memory format of the result; the values are the same, bit for bit.
    """

    def __init__(
        self, spec: DatasetSpec, device: torch.device | str = "cpu", channels_last: bool = False
    ):
        mean, std = (torch.tensor(values) for values in (spec.mean, spec.std))
        scale, offset = 1 / (255 * std), -mean / std
        # In channels_last a factor for each value of a row: a loop over three channels at a time
        # takes three to twenty times as long.
        width = spec.image_size
        self._scale, self._offset = (
            (x.repeat(width) if channels_last else x.view(-1, 1, 1)).to(device)
            for x in (scale, offset)
        )
        self._channels_last = channels_last

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 of the same shape, (N, C, H, W).

        Parameters
        ----------
        pixels
            uint8, in any memory format; fastest in that of the result.
        """
        if not self._channels_last:
            values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
            return values.mul_(self._scale).add_(self._offset)
        number, channels, height, width = pixels.shape
        rows = pixels.permute(0, 2, 3, 1).reshape(number, height, width * channels)
        values = rows.to(torch.float32).mul_(self._scale).add_(self._offset)
        return values.view(number, height, width, channels).permute(0, 3, 1, 2)


class ImageTransform:
    """Resize, crop and augment stored images.

    Augmentations: *none*; *shift*, a random crop after padding an eighth of the size with zeros;
    *crop_flip*, the same and a random horizontal flip; *imagenet*, a random resized crop, colour
    jitter 0.4 and a random horizontal flip.

    Parameters
    ----------
    spec
        Gives sizes, mean, standard deviation and augmentation.
    """

    def __init__(self, spec: DatasetSpec):
        self._size = spec.image_size
        self._resize = eval_resize(spec)
        self._augmentation = spec.augmentation
        self._normalise = Normalisation(spec)
        self._imagenet = v2.Compose(
            [
                v2.RandomResizedCrop(self._size, antialias=True),
                v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER),
                v2.RandomHorizontalFlip(),
            ]
        )

    def evaluation(self, images: Images) -> Tensor:
        """Resize and crop the centre, and leave the rest to `Normalisation`.

        Returns
        -------
        uint8, shape (N, C, image_size, image_size).
        """
        if isinstance(images, Tensor):
            size = [self._size, self._size]
            return images if list(images.shape[-2:]) == size else _resized(images, size)
        centred = [
            functional.center_crop(_resized(image, [self._resize]), [self._size, self._size])
            for image in images
        ]
        return torch.stack([functional.pil_to_tensor(image) for image in centred])

    def training(self, images: Images, keys: Keys) -> Tensor:
        """Augment each image as its key says: float, shape (N, C, image_size, image_size)."""
        if self._augmentation == "imagenet":
            return self._normalise(self._resized_crops(images, keys))
        pixels = self.evaluation(images)
        if self._augmentation in ("shift", "crop_flip"):
            pixels = self._shifted(pixels, keys)
        if self._augmentation == "crop_flip":
            flip = torch.from_numpy(draw(keys, 2, 2) == 1).view(-1, 1, 1, 1)
            pixels = torch.where(flip, pixels.flip(-1), pixels)
        return self._normalise(pixels)

    def _shifted(self, pixels: Tensor, keys: Keys) -> Tensor:
        margin = max(1, round(self._size / 8))
        # A view of every crop that there is; indexing it copies the one that is wanted.
        crops = pad(pixels, [margin] * 4).unfold(2, self._size, 1).unfold(3, self._size, 1)
        top, left = (torch.from_numpy(draw(keys, i, 2 * margin + 1)) for i in (0, 1))
        return crops[torch.arange(len(pixels)), :, top, left]

    def _resized_crops(self, images: Images, keys: Keys) -> Tensor:
        # torchvision draws from PyTorch's global generator; it is left as it was. Its own
        # manual_seed, since torch.manual_seed would also seed every GPU.
        generator = torch.default_generator
        state = generator.get_state()
        try:
            results = []
            for image, key in zip(images, keys, strict=True):
                generator.manual_seed(int(key))
                result = self._imagenet(image)
                is_tensor = isinstance(result, Tensor)
                results.append(result if is_tensor else functional.pil_to_tensor(result))
        finally:
            generator.set_state(state)
        return torch.stack(results)


def _resized(images: Any, size: list[int]) -> Any:
    return functional.resize(images, size, v2.InterpolationMode.BILINEAR, antialias=True)


def eval_resize(spec: DatasetSpec) -> int:
    """Return the length of the shorter side, in pixels, before the centre is cropped."""
    return round(spec.image_size / spec.crop_pct)


def describe_preprocessing(spec: DatasetSpec) -> dict[str, Any]:
    """Return all that decides what the network sees, as JSON has it: for checkpoints."""
    return {
        "dataset": spec.name,
        "num_classes": spec.num_classes,
        "channels": spec.channels,
        "image_size": spec.image_size,
        "eval_resize": eval_resize(spec),
        "interpolation": "bilinear",
        "value_range": [0.0, 1.0],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "augmentation": spec.augmentation,
    }


def check_preprocessing(stored: Any, current: Mapping[str, Any]) -> None:
    """Check that a checkpoint was trained on data prepared like the recipe's.

    Parameters
    ----------
    stored
        What the checkpoint says.
    current
        What the recipe leads to: `ImageData.preprocessing`.

    Raises
    ------
    CheckpointError
        They differ; the message names every key that does, with both values.
    """
    if not isinstance(stored, Mapping):
        raise CheckpointError("the checkpoint does not say how its images were prepared.")
    keys = [*current, *(key for key in stored if key not in current)]
    different = [key for key in keys if _plain(stored.get(key)) != _plain(current.get(key))]
    if different:
        values = "; ".join(
            f"{key} is {stored.get(key)!r} in the checkpoint, {current.get(key)!r} in the recipe"
            for key in different
        )
        raise CheckpointError(
            f"the checkpoint was trained on images prepared in another way: {values}. "
            "Use the data section that it was trained with, or train again."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
