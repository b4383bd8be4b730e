"""Mean and standard deviation of the training images, measured once and kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import torch

from nni_spos.data.reading import ImageSplit, read_batches
from nni_spos.data.transforms import describe_preprocessing
from nni_spos.display.progress import note_progress, open_bar
from nni_spos.errors import DataError, text_of
from nni_spos.files.atomic import read_json, write_json
from nni_spos.files.locks import exclusive
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.values import is_finite

MeanAndDeviation: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of values in [0, 1]."""

PART = 64
"""Images that are read at a time."""

UNWATCHED_S = 2.0
"""Seconds of measuring before a progress bar is shown."""

_DECIDING = ("channels", "bits", "image_size", "eval_resize", "interpolation")
"""What decides the pixels of an image, besides the image."""


def measured_spec(
    spec: DatasetSpec, training: ImageSplit, workers: int, file: FilePath | None
) -> DatasetSpec:
    """Return a spec with the mean and standard deviation of the training images.

    They are sums of whole numbers, so they do not depend on the order of the images, the number
    of processes or the machine.

    Parameters
    ----------
    spec
        Of the data set.
    training
        Its training split, prepared as for evaluation: in the size that the network gets.
    workers
        Processes that read images; 0: this one.
    file
        Where the numbers are kept, to be used again for the same images; None: they are not.

    Raises
    ------
    DataError
        A channel has one value everywhere, an image cannot be read, or the file not be written.
    """
    if file is None:
        mean, std = _measure(spec, training, workers)
    else:
        mean, std = _kept(spec, training, workers, file)
    return dataclasses.replace(spec, mean=mean, std=std)


def _kept(
    spec: DatasetSpec, training: ImageSplit, workers: int, file: FilePath
) -> MeanAndDeviation:
    """Return what a file has for these images, or measure and write it."""
    described = describe_preprocessing(spec)
    made_from = {name: described[name] for name in _DECIDING}
    made_from |= {"num_images": len(training), "images": training.digest()}
    try:
        found = _read(file, made_from, spec)
        if found is None:
            refusal = DataError(f"{file}: another process is writing it.")
            with exclusive(file.with_suffix(".lock"), timeout=-1, refusal=refusal):
                found = _read(file, made_from, spec)  # another process may have measured it
                if found is None:
                    found = _measure(spec, training, workers)
                    mean, std = found
                    write_json(file, {"mean": mean, "std": std, "made_from": made_from})
    except OSError as problem:
        raise DataError(f"{file}: cannot be written or read ({text_of(problem)}).") from None
    return found


def _read(
    file: FilePath, made_from: Mapping[str, Any], spec: DatasetSpec
) -> MeanAndDeviation | None:
    """Return what the file has for these images; None if that is nothing, or damaged."""
    try:
        content = read_json(file, DataError)
    except DataError:
        return None
    if not isinstance(content, dict) or content.get("made_from") != made_from:
        return None
    mean, std = (_numbers(content.get(name), spec.channels) for name in ("mean", "std"))
    return (mean, std) if mean and std and min(std) > 0 else None


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    """Return so many numbers of a file, or none."""
    if isinstance(values, list) and len(values) == count and all(map(is_finite, values)):
        return tuple(map(float, values))
    return ()


def _measure(spec: DatasetSpec, training: ImageSplit, workers: int) -> MeanAndDeviation:
    sums, squares = [0] * spec.channels, [0] * spec.channels
    keys = [part.tolist() for part in torch.arange(len(training)).split(PART)]
    with open_bar("measure images", len(training), "image", delay=UNWATCHED_S) as bar:
        for pixels, _ in read_batches(training, keys, len(keys), workers):
            values = pixels.to(torch.int64)
            # Whole numbers without limit, since those of 64 bits do not hold millions of images.
            for totals, part in ((sums, values), (squares, values * values)):
                for channel, total in enumerate(part.sum(dim=(0, 2, 3)).tolist()):
                    totals[channel] += total
            bar.update(len(pixels))
            note_progress()
    number = len(training) * math.prod(spec.input_shape[1:])
    spreads = [number * square - total**2 for total, square in zip(sums, squares, strict=True)]
    if 0 in spreads:
        raise DataError(
            f"data.normalisation: channel {spreads.index(0)} of the training images of {spec.name} "
            "has the same value everywhere, so its standard deviation is 0. Leave the channel out "
            "of the images, or give mean and std."
        )
    scale = number * spec.largest
    mean = tuple(total / scale for total in sums)
    return mean, tuple(math.sqrt(spread) / scale for spread in spreads)
