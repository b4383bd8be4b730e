"""Open a data set of PyTorch's kind, and see in its samples what a spec says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nni_spos.data.parts import DatasetParts
from nni_spos.data.pixels import GREY
from nni_spos.data.samples import SampleStore
from nni_spos.data.sources.files import IMAGENET
from nni_spos.data.stores import ImageStore
from nni_spos.errors import DataError
from nni_spos.recipe.dataset import IGNORED, Dataset, DatasetSpec


@dataclass
class Opened:
    """An opened data set.

    Parameters
    ----------
    dataset
        What the recipe names.
    parts
        What is behind it.
    training
        The training set.
    spec
        What is known about it.
    """

    dataset: Dataset
    parts: DatasetParts
    training: SampleStore
    spec: DatasetSpec
    _stores: dict[str, ImageStore] = field(default_factory=dict)

    def open_part(self, part: str) -> ImageStore | None:
        """Open another part; None if there is none."""
        make = getattr(self.parts, part)
        if make is None:
            return None
        if part not in self._stores:
            samples = make()
            if samples is None:
                return None
            self._stores[part] = SampleStore(self.dataset, samples, part, self.training)
        return self._stores[part]


_cache: dict[tuple[type[Dataset], str], Opened] = {}
"""The data set that was opened last: its spec is asked for often, and costs a look at its samples.
"""


def opened(dataset: Dataset, open_parts: Callable[[], DatasetParts]) -> Opened:
    """Open a data set, and look at its samples.

    Parameters
    ----------
    dataset
        What the recipe names.
    open_parts
        Returns what is behind it.

    Raises
    ------
    DataError
        A sample is not what can be taken; the message says which and why.
    """
    key = (type(dataset), repr(dataset))
    if key not in _cache:
        parts = open_parts()
        training = SampleStore(dataset, parts.train, "training")
        found = Opened(dataset, parts, training, _spec(dataset, parts.train, training))
        _cache.clear()
        _cache[key] = found
    return _cache[key]


def _spec(dataset: Dataset, samples: Any, store: SampleStore) -> DatasetSpec:
    """Return what samples say; what the recipe says goes before it."""
    sizes = store.sizes()
    image = store.read(np.array([0]))[0]
    channels = len(image.getbands()) if isinstance(image, Image.Image) else len(image)
    width, height = next(iter(sizes))
    # Photos of one size, as a camera takes them, are no reason for a network of that size.
    is_one_size = len(sizes) == 1 and (width == height or store.form != "pillow")
    size = (height, width)
    if not is_one_size and store.form != "pillow":
        raise DataError(
            f"data set {dataset.name}: its images are tensors of {height} x {width} and of other "
            "pixels; they must have one size. Give Pillow images, or resize them."
        )
    mean, std = IMAGENET.get(channels) or tuple(x * channels for x in IMAGENET[GREY])
    if store.form == "prepared":
        mean, std = (0.0,) * channels, (1.0,) * channels
    return DatasetSpec(
        name=dataset.name,
        num_classes=_num_classes(dataset, samples, store),
        channels=channels,
        native_size=size if is_one_size else None,
        image_size=size if is_one_size else 224,
        mean=mean,
        std=std,
        augmentation="none" if is_one_size or store.kind != "class" else "imagenet",
        crop_pct=1.0 if is_one_size else 224 / 256,
        target=store.kind,
        is_prepared=store.form == "prepared",
        bits=16 if isinstance(image, Tensor) and image.dtype == torch.uint16 else 8,
    )


def _num_classes(dataset: Dataset, samples: Any, store: SampleStore) -> int:
    if store.kind in ("labels", "values"):
        return int(store.targets.shape[1])
    if dataset.settings.num_classes is not None:
        return dataset.settings.num_classes
    counted = store.targets
    if store.kind == "mask":
        counted = counted[counted != IGNORED]
    largest = int(counted.max(initial=-1)) + 1
    classes = getattr(samples, "classes", None)
    if isinstance(classes, Sequence) and len(classes) >= largest:
        return len(classes)
    if store.kind == "class" and store.targets.min() > 0:
        raise DataError(
            f"data set {dataset.name}: the smallest class is {store.targets.min()}; classes count "
            "from 0. Subtract it, or set 'num_classes' in the recipe's data section."
        )
    return largest
