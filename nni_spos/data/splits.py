"""Dividing a training set into the training, the search-validation and perhaps the test split."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.errors import DataError

MAX_DEFAULT_VALIDATION = 50_000
"""The paper holds out 50,000 of ImageNet's training images (paper: section 4)."""

TEST_SEED = 0
"""Which images are the test set must never change."""

Positions = npt.NDArray[np.int64]
Strata = npt.NDArray[np.int64]
Groups = npt.NDArray[Any]


@dataclass(frozen=True)
class Splits:
    """Positions in the training set, ascending; no two splits share one.

    Parameters
    ----------
    train
        Images that weights are trained with and BatchNorm statistics are recalculated with.
    validation
        Images that the search scores paths with; positions in the validation set where the data
        set has one of its own.
    test
        Images of the final test; None: the data set has a test set of its own.
    """

    train: Positions
    validation: Positions
    test: Positions | None = None


def strata_of(target: str, targets: npt.NDArray[Any], number: int | None = None) -> Strata:
    """Return what splits keep the shares of, a whole number for each image.

    Those are the classes; of several labels their combinations, of which the rare ones count as
    one; of values and masks nothing.

    Parameters
    ----------
    target
        See `nni_spos.recipe.dataset.DatasetSpec`.
    targets
        Shape (N,), or (N, K).
    number
        Size of a split, in which a combination that is not rare can be expected; None: a tenth.
    """
    if target == "class":
        return targets
    if target != "labels":
        return np.zeros(len(targets), np.int64)
    _, strata, counts = np.unique(targets, axis=0, return_inverse=True, return_counts=True)
    is_rare = counts * (number or len(targets) / 10) < len(targets)
    # One rare combination alone would be a stratum that cannot be divided.
    if is_rare.any() and counts[is_rare].sum() * (number or len(targets) / 10) < len(targets):
        is_rare[np.argmin(np.where(is_rare, counts.max() + 1, counts))] = True
    strata = strata.reshape(-1).astype(np.int64)
    return np.where(is_rare[strata], len(counts), strata)


def split_training_set(
    strata: Strata,
    num_train: int | None = None,
    num_validation: int | None = None,
    seed: int = 0,
    *,
    num_test: int | None = None,
    groups: Groups | None = None,
    validation: Strata | None = None,
) -> Splits:
    """Hold out test and validation images, then take training images; all keep the strata's shares.

    Parameters
    ----------
    strata
        A number for each image of the training set, shape (N,), such as its class: all splits keep
        the share of each. All the same: images are drawn from all alike.
    num_train
        Number of training images; None: all that are not held out.
    num_validation
        Number of validation images; None: a tenth of the training set, at most 50,000; or all of
        the validation set. Which they are does not depend on `num_train`.
    seed
        Decides which images are taken.
    num_test
        Number of test images. They are held out first, and do not depend on the seed.
    groups
        Images of one group stay together: splits then have about the numbers that are asked for,
        and the shares of the strata as far as groups allow; shape (N,).
    validation
        Strata of the validation set of a data set that has one, shape (M,).

    Raises
    ------
    DataError
        The training set is too small, or a split has fewer images than strata.
    """
    total = len(strata)
    num_classes = len(np.unique(strata))
    own = None if validation is None else _part_of(validation, num_validation, seed)
    if own is not None:
        num_validation = 0
    elif num_validation is None:
        num_validation = max(num_classes, min(MAX_DEFAULT_VALIDATION, round(total / 10)))
    num_held = num_validation + (num_test or 0)
    wanted = num_held + (num_classes if num_train is None else num_train)
    if wanted > total:
        train = f"one for each of {num_classes} classes" if num_train is None else f"{num_train}"
        test = f", {num_test} for the test (num_test)" if num_test else ""
        raise DataError(
            f"the training set has {total} images; {num_validation} for validation "
            f"(num_validation){test} and {train} for training (num_train) are {wanted}."
        )
    numbers = (
        ("num_test", num_test),
        ("num_validation", None if own is not None else num_validation),
        ("num_train", num_train),
    )
    for key, number in numbers:
        if number is not None and number < num_classes:
            raise DataError(
                f"{key} = {number} is too small: the {num_classes} classes need at least one "
                "image each."
            )
    hold_out: Callable[..., tuple[Positions, Positions]] = _stratified
    if groups is not None:
        hold_out = _grouped(groups)
    rest, test_images = np.arange(total), None
    if num_test:
        test_images, rest = hold_out(rest, strata, num_test, TEST_SEED, "num_test")
    if own is None:
        own, rest = hold_out(rest, strata, num_validation, seed, "num_validation")
    if num_train is not None and num_train < len(rest):
        rest, _ = _stratified(rest, strata, num_train, seed, "num_train")
    return Splits(train=rest, validation=own, test=test_images)


def check_groups_apart(one: Groups | None, other: Groups | None, names: tuple[str, str]) -> None:
    """Refuse a group of which two sets have images.

    Raises
    ------
    DataError
        There is one.
    """
    if one is None or other is None:
        return
    if len(common := np.intersect1d(one, other)):
        raise DataError(
            f"the group '{common[0]}' is in the {names[0]} set and in the {names[1]} set. Images "
            "of a group must be in one of them."
        )


def _part_of(strata: Strata, number: int | None, seed: int) -> Positions:
    """Return the positions of a validation set that are used."""
    total = len(strata)
    if number is not None and number > total:
        raise DataError(
            f"num_validation = {number} is too much: the validation set has {total} images."
        )
    everything = np.arange(total)
    if number in (None, total):
        return everything
    assert number is not None
    return _stratified(everything, strata, number, seed, "num_validation")[0]


def _stratified(
    positions: Positions, strata: Strata, number: int, seed: int, key: str
) -> tuple[Positions, Positions]:
    """Take `number` of some positions; return those taken and those left, ascending."""
    from sklearn.model_selection import train_test_split  # takes long to import

    classes, counts = np.unique(strata[positions], return_counts=True)
    if counts.min() == 1:
        single = classes[counts.argmin()]
        raise DataError(
            f"{key} = {number}: class {single} has a single image (image "
            f"{positions[strata[positions] == single][0]}), so that it cannot be in both parts. "
            "Add images of it, leave it out, or give a validation set."
        )
    try:
        taken, left = train_test_split(
            positions,
            train_size=number,
            test_size=len(positions) - number,
            stratify=strata[positions],
            random_state=seed % 2**32,
        )
    except ValueError as problem:
        text = " ".join(str(problem).split()).rstrip(".")
        raise DataError(
            f"{key} = {number} of {len(positions)} images cannot be taken with every class in "
            f"both parts ({text})."
        ) from None
    return np.sort(taken), np.sort(left)


def _grouped(groups: Groups) -> Callable[..., tuple[Positions, Positions]]:
    """Return what holds out whole groups, as `_stratified` holds out images."""
    numbers = np.unique(groups, return_inverse=True)[1].reshape(-1)

    def hold_out(
        positions: Positions, strata: Strata, number: int, seed: int, key: str
    ) -> tuple[Positions, Positions]:
        from sklearn.model_selection import StratifiedGroupKFold  # as above

        total, num_groups = len(positions), len(np.unique(numbers[positions]))
        if num_groups < 2:
            raise DataError(
                f"{key} = {number}: all {total} images are of one group, so that none can be held "
                "out."
            )
        # A fold is the smaller part: of three it is a third.
        smaller = min(number, total - number)
        num_folds = min(num_groups, max(2, round(total / max(1, smaller))))
        folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a class has fewer images than there are folds
            try:
                parts = list(folds.split(positions, strata[positions], numbers[positions]))
            except ValueError as problem:
                raise DataError(
                    f"{key} = {number} of {total} images cannot be taken by groups "
                    f"({' '.join(str(problem).split())})."
                ) from None
        both = [(a, b) if number == smaller else (b, a) for b, a in parts]
        taken, left = min(both, key=lambda part: abs(len(part[0]) - number))
        missing = np.setdiff1d(strata[positions], strata[positions][left])
        if len(missing) or not len(taken):
            reason = f"no image of class {missing[0]} is left" if len(missing) else "there are none"
            raise DataError(
                f"{key} = {number}: {reason} when whole groups are held out. Choose another number "
                "or split_seed, or add groups."
            )
        return np.sort(positions[taken]), np.sort(positions[left])

    return hold_out
