"""Images and targets out of the samples of PyTorch's map-style data sets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from nni_spos.components import explain
from nni_spos.data.decoding import decode
from nni_spos.data.pixels import COLOUR, GREY, Images
from nni_spos.data.rgb import to_rgb
from nni_spos.data.sample_targets import sample_targets
from nni_spos.data.stores import ImageIndices
from nni_spos.data.targets import Targets
from nni_spos.data.transforms import Keys, random_keys
from nni_spos.display.progress import note_progress, open_bar
from nni_spos.errors import DataError, SposError
from nni_spos.recipe.dataset import Dataset

IMAGE_KEYS = ("image", "img")
TARGET_KEYS = ("target", "label", "labels", "targets", "values")
"""Keys of samples that are dicts, in the order in which they are looked for."""

ATTRIBUTES = ("targets", "labels")
"""Attributes of a data set that may have all targets, as torchvision's have."""

LOOKED_AT = 16
"""Images that tell whether all have one size."""

UNWATCHED_S = 2.0
"""Seconds of reading before a progress bar is shown."""

GREY_MODES = ("1", "L")
"""Of Pillow images."""

ImageForm = Literal["prepared", "pixels", "pixels of 16 bits", "pillow"]


class SampleStore:
    """Samples that are asked for when they are needed.

    What is random in a data set's own transforms is drawn from PyTorch's, NumPy's and Python's
    global generators, which are set for each image and left as they were: an image is the same
    whenever it is read, and another one in each epoch of a training.

    Parameters
    ----------
    dataset
        What the recipe names.
    samples
        Has ``__len__`` and ``__getitem__``.
    part
        Which set it is, for messages.
    like
        The training set, whose images are of the same form; None: this is it.

    Raises
    ------
    DataError
        It has no length, or a sample is not what can be taken.
    """

    def __init__(self, dataset: Dataset, samples: Any, part: str, like: SampleStore | None = None):
        self._name = dataset.name
        self._folder = dataset.settings.folder
        self._channels, self._bits = dataset.settings.channels, dataset.settings.bits
        self._part = part
        self._samples = samples
        self._number = self._length()
        readable = np.arange(self._number)
        targets = None
        if dataset.settings.on_error == "skip":
            readable, targets = self._readable()
        first, _ = self._sample(int(readable[0]))
        self.form: ImageForm = self._form_of(first, int(readable[0]))
        if like is not None and like.form != self.form:
            raise self._error(
                f"its images are {self.form}; those of the training set are {like.form}."
            )
        self._readable_indices = readable
        self._is_grey: bool = self._are_grey() if like is None else like._is_grey
        self.kind, self.targets = self._targets(readable, targets)
        self.groups = self._groups(readable)
        if self._length() != self._number:
            raise self._error(
                f"its length changes: it was {self._number}, and now is {self._length()}."
            )

    def read(self, indices: ImageIndices) -> Images:
        """Read images, each always the same one."""
        return self.read_varied(indices, random_keys(0, np.zeros_like(indices), indices))

    def read_varied(self, indices: ImageIndices, keys: Keys) -> Images:
        """Read images as their keys let the data set's own transforms vary them."""
        with _OwnRandomness() as seed:
            images = []
            for index, key in zip(self._readable_indices[indices], keys, strict=True):
                seed(int(key))
                images.append(self._image(int(index)))
        if self.form == "pillow":
            return images
        shapes = [tuple(image.shape) for image in images]
        if len(set(shapes)) > 1:
            other = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
            raise self._error(
                f"image {indices[other]} has the shape {shapes[other]}, image {indices[0]} "
                f"{shapes[0]}. Tensors must have one size; give Pillow images, or resize them."
            )
        return torch.stack(images)

    def digest(self, indices: ImageIndices) -> str:
        """Return what tells these images, in this order, from any others."""
        digest = hashlib.sha256()
        for index in indices:
            for image in self.read(np.array([index])):
                pixels = image.numpy() if isinstance(image, Tensor) else np.asarray(image)
                digest.update(f"{pixels.shape}{pixels.dtype}".encode() + pixels.tobytes())
        return digest.hexdigest()

    def name_of(self, index: int) -> str:
        """Return the number of a sample in its data set."""
        return str(self._readable_indices[index])

    def sizes(self) -> set[tuple[int, int]]:
        """Return widths and heights of some images, evenly spread."""
        images = [self.read(np.array([i]))[0] for i in self._some()]
        return {
            x.size if isinstance(x, Image.Image) else (x.shape[-1], x.shape[-2]) for x in images
        }

    def _error(self, text: str) -> DataError:
        return DataError(f"data set {self._name}: {self._part} set: {text}")

    def _length(self) -> int:
        if not hasattr(self._samples, "__len__"):
            raise self._error(
                f"a {type(self._samples).__name__} has no __len__. A data set needs __len__, the "
                "number of its images, and __getitem__."
            )
        try:
            number = len(self._samples)
        except Exception as problem:  # a user's code
            raise self._error(f"__len__: {explain(problem, self._folder)}") from None
        if not hasattr(self._samples, "__getitem__"):
            raise self._error(f"a {type(self._samples).__name__} has no __getitem__.")
        if not number:
            raise self._error("it has no images.")
        return number

    def _sample(self, index: int) -> tuple[Any, Any]:
        """Return image and target of a sample. Raises DataError."""
        try:
            sample = self._samples[index]
        except SposError:
            raise
        except IndexError as problem:
            raise self._error(
                f"image {index}: {explain(problem, self._folder)}. Its __len__ says "
                f"{self._length()}."
            ) from None
        except Exception as problem:  # a user's code: anything can be raised
            raise self._error(f"image {index}: {explain(problem, self._folder)}") from None
        if isinstance(sample, Mapping):
            image = self._value(sample, IMAGE_KEYS, index)
            return image, self._value(sample, TARGET_KEYS, index)
        if isinstance(sample, Sequence) and not isinstance(sample, str) and len(sample) == 2:
            return sample[0], sample[1]
        what = f"{len(sample)} values" if isinstance(sample, tuple) else type(sample).__name__
        raise self._error(
            f"image {index}: the sample is {what}; must be (image, target), or a dict."
        )

    def _value(self, sample: Mapping[Any, Any], keys: Sequence[str], index: int) -> Any:
        for key in keys:
            if key in sample:
                return sample[key]
        raise self._error(
            f"image {index}: the sample has the keys {', '.join(map(str, sample))}; one must be "
            f"{' or '.join(keys)}."
        )

    def _form_of(self, image: Any, index: int) -> ImageForm:
        if isinstance(image, Image.Image):
            return "pillow"
        if isinstance(image, Tensor) and image.ndim == 3:
            if image.is_floating_point():
                return "prepared"
            if image.dtype == torch.uint8:
                return "pixels"
            if image.dtype == torch.uint16:
                return "pixels of 16 bits"
        is_shaped = isinstance(image, Tensor | np.ndarray)
        shape = f" of {image.dtype}, shape {tuple(image.shape)}" if is_shaped else ""
        raise self._error(
            f"image {index} is a {type(image).__name__}{shape}; must be a Pillow image, or a "
            "tensor of shape (channels, height, width), uint8, uint16 or float."
        )

    def _image(self, index: int) -> Any:
        image, _ = self._sample(index)
        form = self._form_of(image, index)
        if form != self.form:
            raise self._error(f"image {index} is {form}; others are {self.form}.")
        if form == "prepared":
            if not torch.isfinite(image).all():
                raise self._error(f"image {index} has values that are not finite.")
            return image.to(torch.float32)
        if form != "pillow":
            return image
        if self._is_grey and self._channels is None and image.mode not in GREY_MODES:
            raise self._error(
                f"image {index} has the mode {image.mode}, but others are grey. Convert all to one."
            )
        try:
            if self._bits is not None or self._channels is not None:
                channels = self._channels or (GREY if self._is_grey else COLOUR)
                return decode(image, channels, self._bits)
            return image.convert("L") if self._is_grey else to_rgb(image)
        except (OSError, ValueError, SyntaxError) as problem:
            name = getattr(image, "filename", "")
            raise self._error(
                f"image {index}{f' ({name})' if name else ''}: {explain(problem, self._folder)}"
            ) from None

    def _some(self) -> ImageIndices:
        """Return the positions of some images, evenly spread."""
        last = len(self._readable_indices) - 1
        return np.unique(np.linspace(0, last, min(last + 1, LOOKED_AT)).astype(np.int64))

    def _are_grey(self) -> bool:
        """Whether images have one channel: colours are rather kept where some have them."""
        if self.form != "pillow":
            return False
        images = (self._sample(int(self._readable_indices[i]))[0] for i in self._some())
        return all(getattr(image, "mode", "") in GREY_MODES for image in images)

    def _readable(self) -> tuple[ImageIndices, dict[int, Any]]:
        """Return which samples can be read, and their targets; the others are counted."""
        from nni_spos.data.skipping import readable

        targets: dict[int, Any] = {}

        def read(index: int) -> None:
            image, targets[index] = self._sample(index)
            if isinstance(image, Image.Image):
                try:
                    image.load()
                except (OSError, ValueError, SyntaxError) as problem:
                    raise self._error(f"image {index}: {problem}") from None

        return readable(read, self._number, f"data set {self._name}: {self._part} set"), targets

    def _targets(
        self, readable: ImageIndices, known: Mapping[int, Any] | None
    ) -> tuple[str, Targets]:
        values = None if known is not None else self._attribute(readable)
        if values is None:
            values = [known[i] for i in readable] if known else list(self._read_targets(readable))
        try:
            return sample_targets(values)
        except DataError as problem:
            raise self._error(str(problem)) from None

    def _attribute(self, readable: ImageIndices) -> Sequence[Any] | None:
        """Return all targets from an attribute, if it has what some samples have."""
        if getattr(self._samples, "target_transform", None) is not None:
            return None
        for name in ATTRIBUTES:
            values = getattr(self._samples, name, None)
            if not hasattr(values, "__len__") or len(values) != self._number:  # type: ignore[arg-type]
                continue
            values = values.tolist() if hasattr(values, "tolist") else list(values)  # type: ignore[union-attr, arg-type]
            some = {0, self._number // 2, self._number - 1}
            if all(_same(values[i], self._sample(i)[1]) for i in some):
                return [values[i] for i in readable]
        return None

    def _read_targets(self, readable: ImageIndices) -> Iterator[Any]:
        """Read all samples for their targets."""
        with open_bar(
            f"read {self._part} targets", len(readable), "image", delay=UNWATCHED_S
        ) as bar:
            for number, index in enumerate(readable):
                yield self._sample(int(index))[1]
                bar.update()
                if number % 100 == 0:
                    note_progress()

    def _groups(self, readable: ImageIndices) -> npt.NDArray[Any] | None:
        """Return what its attribute or method ``groups`` says of each sample."""
        groups = getattr(self._samples, "groups", None)
        if groups is None:
            return None
        try:
            values = np.asarray(groups() if callable(groups) else groups)
        except Exception as problem:  # a user's code
            raise self._error(f"groups: {explain(problem, self._folder)}") from None
        if values.shape != (self._number,):
            raise self._error(
                f"groups has the shape {values.shape}; must be one value for each of "
                f"{self._number} images."
            )
        return values[readable]


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(np.array_equal(np.asarray(one), np.asarray(other)))
    except Exception:  # of any type
        return False


class _OwnRandomness:
    """Within it the global generators may be set for an image; then they are as they were."""

    def __enter__(self) -> Callable[[int], None]:
        self._states = (
            random.getstate(),
            np.random.get_state(),
            torch.default_generator.get_state(),
        )
        return self._seed

    @staticmethod
    def _seed(key: int) -> None:
        random.seed(key)
        np.random.seed(key % 2**32)
        # Its own manual_seed, since torch.manual_seed would also seed every GPU.
        torch.default_generator.manual_seed(key % 2**63)

    def __exit__(self, *_: object) -> None:
        python, numpy, pytorch = self._states
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(pytorch)
