"""Dividing a training set into the training and the search-validation split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from nni_spos.errors import DataError

MAX_DEFAULT_VALIDATION = 50_000
"""The paper holds out 50,000 of ImageNet's training images (paper: section 4)."""


@dataclass(frozen=True)
class Splits:
    """Positions in the training set, ascending; the two never share one.

    Parameters
    ----------
    train
        Images that weights are trained with and BatchNorm statistics are recalculated with.
    validation
        Images that the search scores paths with.
    """

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]


def split_training_set(
    labels: npt.NDArray[np.int64],
    num_train: int | None = None,
    num_validation: int | None = None,
    seed: int = 0,
) -> Splits:
    """Hold out validation images, then take training images; both keep the classes' shares.

    Parameters
    ----------
    labels
        Labels of the training set, shape (N,).
    num_train
        Number of training images; None: all that are not held out.
    num_validation
        Number of validation images; None: a tenth of the training set, at most 50,000. Which
        they are does not depend on `num_train`.
    seed
        Decides which images are taken.

    Raises
    ------
    DataError
        The training set is too small, or a split has fewer images than classes.
    """
    total = len(labels)
    num_classes = len(np.unique(labels))
    if num_validation is None:
        num_validation = max(num_classes, min(MAX_DEFAULT_VALIDATION, round(total / 10)))
    wanted = num_validation + (num_classes if num_train is None else num_train)
    if wanted > total:
        train = f"one for each of {num_classes} classes" if num_train is None else f"{num_train}"
        raise DataError(
            f"the training set has {total} images; {num_validation} for validation "
            f"(num_validation) and {train} for training (num_train) are {wanted}."
        )
    for key, number in (("num_validation", num_validation), ("num_train", num_train)):
        if number is not None and number < num_classes:
            raise DataError(
                f"{key} = {number} is too small: the {num_classes} classes need at least one "
                "image each."
            )
    everything = np.arange(total)
    validation, rest = _stratified(everything, labels, num_validation, seed, "num_validation")
    if num_train is not None and num_train < len(rest):
        rest, _ = _stratified(rest, labels, num_train, seed, "num_train")
    return Splits(train=rest, validation=validation)


def _stratified(
    positions: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    number: int,
    seed: int,
    key: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Take `number` of some positions; return those taken and those left, ascending."""
    try:
        taken, left = train_test_split(
            positions,
            train_size=number,
            test_size=len(positions) - number,
            stratify=labels[positions],
            random_state=seed % 2**32,
        )
    except ValueError as problem:
        text = " ".join(str(problem).split()).rstrip(".")
        raise DataError(
            f"{key} = {number} of {len(positions)} images cannot be taken with every class in "
            f"both parts ({text})."
        ) from None
    return np.sort(taken), np.sort(left)
