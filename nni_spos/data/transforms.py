"""From stored images to the network's input, and the description that goes into checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from torchvision.tv_tensors import Mask

from nni_spos.data.pixels import COLOUR, GREY, Images, as_promised, pixel_type
from nni_spos.errors import CheckpointError
from nni_spos.recipe.data_settings import BGR
from nni_spos.recipe.dataset import IGNORED, DatasetSpec
from nni_spos.recipe.image_size import ImageSize, height_width, size_as_json

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


class ImageAugmentation(Protocol):
    """What is done to training images beside the data set's own augmentation.

    What is done to an image is a function of its key.
    """

    def pixels(self, images: Tensor, keys: Keys) -> Tensor:
        """Change images before they are normalised: uint8, shape (N, C, H, W)."""

    def values(self, images: Tensor, keys: Keys) -> Tensor:
        """Change images after that: float32, shape (N, C, H, W)."""


class Normalisation:
    """Turn pixels into the network's input: ``(pixels / largest - mean) / std``.

    The largest value of a pixel is 255, or 65535 of 16 bits.

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
        scale, offset = 1 / (spec.largest * std), -mean / std
        self._is_reversed = spec.channel_order == BGR
        if self._is_reversed:
            scale, offset = scale.flip(0), offset.flip(0)
        # In channels_last a factor for each value of a row: a loop over three channels at a time
        # takes three to twenty times as long.
        _, width = height_width(spec.image_size)
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
            uint8 or uint16, in any memory format; fastest in that of the result. Floats are what
            the network gets, and stay as they are.
        """
        if pixels.is_floating_point():
            order = torch.channels_last if self._channels_last else torch.contiguous_format
            return pixels.to(torch.float32, memory_format=order, copy=True)
        if self._is_reversed:
            pixels = _reversed(pixels)
        if not self._channels_last:
            values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
            return values.mul_(self._scale).add_(self._offset)
        number, channels, height, width = pixels.shape
        rows = pixels.permute(0, 2, 3, 1).reshape(number, height, width * channels)
        values = rows.to(torch.float32).mul_(self._scale).add_(self._offset)
        return values.view(number, height, width, channels).permute(0, 3, 1, 2)


def _reversed(pixels: Tensor) -> Tensor:
    """Return the channels in the reverse order; PyTorch's `flip` does not know uint16."""
    return pixels[:, list(range(pixels.shape[1] - 1, -1, -1))]


class ImageTransform:
    """Resize, crop and augment stored images.

    Augmentations: *none*; *shift*, a random crop after padding an eighth of the size with zeros;
    *crop_flip*, the same and a random horizontal flip; *imagenet*, a random resized crop, colour
    jitter 0.4 of grey and RGB images, and a random horizontal flip.

    Parameters
    ----------
    spec
        Gives sizes, mean, standard deviation and augmentation.
    """

    def __init__(self, spec: DatasetSpec):
        self._spec = spec
        self.has_masks = spec.target == "mask"
        self._size = height_width(spec.image_size)
        self._resize = eval_resize(spec)
        self._augmentation = spec.augmentation
        self._normalise = Normalisation(spec)
        height, width = self._size
        # Of the crop, so that what is in it is stretched no more than in a square.
        ratio = tuple(x * (width / height) for x in (3 / 4, 4 / 3))
        jitter = v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER)
        self._augmentations: Sequence[ImageAugmentation] = ()
        self._imagenet = v2.Compose(
            [
                v2.RandomResizedCrop(list(self._size), ratio=ratio, antialias=True),
                # Of other images it is not known what colours are.
                *([jitter] if spec.channels in (GREY, COLOUR) else []),
                v2.RandomHorizontalFlip(),
            ]
        )

    def promised(self, images: Any, indices: npt.NDArray[np.int64]) -> Images:
        """Return what a store read, if the spec says so; see `nni_spos.data.pixels.as_promised`."""
        return as_promised(images, self._spec, indices)

    def evaluation(self, images: Images) -> Tensor:
        """Resize and crop the centre, and leave the rest to `Normalisation`.

        Returns
        -------
        uint8 or uint16, shape (N, C, height, width).
        """
        size = list(self._size)
        if isinstance(images, Tensor):
            return images if list(images.shape[-2:]) == size else _resized(images, size)
        centred = [
            functional.center_crop(_resized(image, self._before_crop(image)), size)
            for image in images
        ]
        return torch.stack([_as_tensor(image) for image in centred])

    def extended(self, augmentations: Sequence[ImageAugmentation]) -> ImageTransform:
        """Return a transform that also does this to training images."""
        other = copy.copy(self)
        other._augmentations = augmentations
        return other

    def training(self, images: Images, keys: Keys) -> Tensor:
        """Augment each image as its key says: float, shape (N, C, height, width)."""
        pixels = self._augmented(images, keys)
        for augmentation in self._augmentations:
            pixels = augmentation.pixels(pixels, keys)
        values = self._normalise(pixels)
        for augmentation in self._augmentations:
            values = augmentation.values(values, keys)
        return values

    def _augmented(self, images: Images, keys: Keys) -> Tensor:
        if self._augmentation == "imagenet":
            return self._resized_crops(images, keys)
        pixels = self.evaluation(images)
        if self._augmentation in ("shift", "crop_flip"):
            pixels = self._shifted(pixels, keys)
        if self._augmentation == "crop_flip":
            pixels = _flipped(pixels, keys)
        return pixels

    def _before_crop(self, image: Any) -> list[int]:
        """Return the size of an image whose centre is cropped: the shorter side, or both."""
        if isinstance(self._resize, int):
            return [self._resize]
        sides = list(zip(self._resize, functional.get_size(image), strict=True))
        scale = max(wanted / side for wanted, side in sides)
        return [max(wanted, round(side * scale)) for wanted, side in sides]

    def training_masks(self, masks: Any, keys: Keys) -> Tensor:
        """Move masks as `training` does the images of the same keys: shape (N, 1, H, W).

        Parameters
        ----------
        masks
            torchvision's `Mask`, shape (N, 1, H, W), or a list of such of shape (1, H, W), of the
            sizes of their images. Its transforms take the nearest pixel of them.
        keys
            Of the images: what is drawn follows from the key and the size.
        """
        if self._augmentation == "imagenet":
            return self._resized_crops(masks, keys)
        found = self.evaluation(masks)
        if self._augmentation in ("shift", "crop_flip"):
            # What is shifted in is 0, which so becomes what does not count.
            found = IGNORED - self._shifted(IGNORED - found, keys)
        if self._augmentation == "crop_flip":
            found = _flipped(found, keys)
        return found

    def _shifted(self, pixels: Tensor, keys: Keys) -> Tensor:
        height, width = self._size
        margins = [max(1, round(side / 8)) for side in self._size]
        padding = [margins[1], margins[1], margins[0], margins[0]]
        # A view of every crop that there is; indexing it copies the one that is wanted.
        crops = pad(pixels, padding).unfold(2, height, 1).unfold(3, width, 1)
        top, left = (
            torch.from_numpy(draw(keys, i, 2 * margin + 1)) for i, margin in enumerate(margins)
        )
        return crops[torch.arange(len(pixels)), :, top, left]

    def _resized_crops(self, images: Images, keys: Keys) -> Tensor:
        def crop(image: Any) -> Tensor:
            if self._spec.bits == 8 or isinstance(image, Mask):
                return _as_tensor(self._imagenet(image))
            # Jitter knows floats, and integers of 8 bits.
            values = self._imagenet(functional.to_dtype(image, torch.float32, scale=True))
            return functional.to_dtype(values, pixel_type(self._spec), scale=True)

        return each_seeded(crop, images, keys)


def each_seeded(
    change: Callable[[Any], Tensor], images: Iterable[Any], keys: npt.NDArray[Any]
) -> Tensor:
    """Return changed images, each with PyTorch's generator seeded by its key.

    torchvision draws from that generator, which is left as it was.
    """
    # Its own manual_seed, since torch.manual_seed would also seed every GPU.
    generator = torch.default_generator
    state = generator.get_state()
    try:
        results = []
        for image, key in zip(images, keys, strict=True):
            generator.manual_seed(int(key))
            results.append(change(image))
    finally:
        generator.set_state(state)
    return torch.stack(results)


def _flipped(pixels: Tensor, keys: Keys) -> Tensor:
    """Mirror images, or the masks of the same keys, where a bit of the key says so."""
    flip = torch.from_numpy(draw(keys, 2, 2) == 1).view(-1, 1, 1, 1)
    return torch.where(flip, pixels.flip(-1), pixels)


def _as_tensor(image: Any) -> Tensor:
    return image if isinstance(image, Tensor) else functional.pil_to_tensor(image)


def _resized(images: Any, size: list[int]) -> Any:
    return functional.resize(images, size, v2.InterpolationMode.BILINEAR, antialias=True)


def eval_resize(spec: DatasetSpec) -> ImageSize:
    """Return the size in pixels of the area that is read, and whose centre is cropped.

    Of a square that is the length of the image's shorter side.
    """
    if isinstance(spec.image_size, int):
        return round(spec.image_size / spec.crop_pct)
    height, width = (round(side / spec.crop_pct) for side in spec.image_size)
    return (height, width)


def describe_preprocessing(spec: DatasetSpec) -> dict[str, Any]:
    """Return all that decides what the network sees, as JSON has it: for checkpoints."""
    return {
        "dataset": spec.name,
        "num_classes": spec.num_classes,
        "channels": spec.channels,
        "bits": spec.bits,
        "image_size": size_as_json(spec.image_size),
        "eval_resize": size_as_json(eval_resize(spec)),
        "interpolation": "bilinear",
        "value_range": [0.0, 1.0],
        "mean": list(spec.mean),
        "std": list(spec.std),
        "channel_order": spec.channel_order,
        "augmentation": spec.augmentation,
        **({"is_prepared": True} if spec.is_prepared else {}),
    }


KNOWN_IN_PART = "known_in_part"
"""Key of a description that says only what is known of somebody else's weights."""


def check_preprocessing(stored: Any, current: Mapping[str, Any]) -> None:
    """Check that a checkpoint was trained on data prepared like the recipe's.

    Parameters
    ----------
    stored
        What the checkpoint says; with the key `KNOWN_IN_PART` only the other keys in it count.
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
    if KNOWN_IN_PART in stored:
        keys = [key for key in stored if key != KNOWN_IN_PART]
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
