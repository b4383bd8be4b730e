"""What a network is to predict for each image: a class, labels, values or a mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nni_spos.recipe.dataset import IGNORED, DatasetSpec

Targets = npt.NDArray[Any]
"""Of all images, shape (N, ...): see `nni_spos.recipe.dataset.DatasetSpec.target`."""


def as_targets(values: Any) -> Targets:
    """Return targets as they are kept: whole numbers as int64 (masks as they are), others float32.

    >>> as_targets([0, 1]).dtype, as_targets([[0.5, 1.0]]).dtype, as_targets([[True]]).dtype
    (dtype('int64'), dtype('float32'), dtype('float32'))
    """
    found = np.asarray(values)
    if found.dtype.kind in "iu":
        return found if found.ndim == 3 else found.astype(np.int64)
    return found.astype(np.float32)


def as_tensor(targets: Targets) -> Tensor:
    """Return some targets as a batch has them: int64 or float32."""
    found = torch.from_numpy(targets)
    return found if found.is_floating_point() else found.long()


def find_problem(
    targets: Any,
    spec: DatasetSpec,
    where: Callable[[int], str] = str,
    says: str = "its spec() says",
) -> str:
    """Return what is wrong with the targets of a data set, and of which image, or "".

    Parameters
    ----------
    targets
        See `Targets`.
    spec
        What they must go with.
    where
        Returns what an image is called.
    says
        Who says the number of classes.
    """
    found = np.asarray(targets)
    number = len(found)
    shapes = {"class": (number,), "mask": (number, *found.shape[1:3])}
    wanted = shapes.get(spec.target, (number, spec.num_classes))
    if found.shape != wanted or (spec.target == "mask" and found.ndim != 3):
        words = {"class": "(N,)", "mask": "(N, H, W)"}.get(spec.target, f"(N, {spec.num_classes})")
        return f"targets of shape {found.shape}; must be {words}, as {says}"
    if spec.target in ("class", "mask"):
        return _class_problem(found, spec, where, says)
    bad = ~np.isfinite(found.astype(np.float64))
    if bad.any():
        return f"a target of image {where(_first(bad))} that is no finite number"
    if spec.target == "labels" and (bad := (found != 0) & (found != 1)).any():
        return f"a label of image {where(_first(bad))} that is neither 0 nor 1"
    return ""


def generate_targets(spec: DatasetSpec, number: int) -> Targets:
    """Return targets that nobody gave, of the kind that a spec says."""
    classes = np.arange(number) % spec.num_classes
    if spec.target == "class":
        return classes
    if spec.target == "mask":
        pixels = np.arange(math.prod(spec.input_shape[1:])) % spec.num_classes
        return np.broadcast_to(pixels, (number, len(pixels))).reshape(number, *spec.input_shape[1:])
    return np.eye(spec.num_classes, dtype=np.float32)[classes]


def _class_problem(
    found: npt.NDArray[Any], spec: DatasetSpec, where: Callable[[int], str], says: str
) -> str:
    if found.dtype.kind not in "iu":
        return f"targets of type {found.dtype}; must be whole numbers"
    outside = (found < 0) | (found >= spec.num_classes)
    if spec.target == "mask":
        outside &= found != IGNORED
    if not outside.any():
        return ""
    return (
        f"the class {found[outside][0]} for image {where(_first(outside))}; {says} "
        f"{spec.num_classes} classes, 0 to {spec.num_classes - 1}"
    )


def _first(bad: npt.NDArray[np.bool_]) -> int:
    return int(np.argwhere(bad)[0, 0])
