"""Published figures of all networks of a space, each trained alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.cost_table import MAX_COST
from nni_spos.errors import DataError
from nni_spos.path import Choice, PathSpace
from nni_spos.values import shown

NUM_TRAININGS = 3
"""How often every network of the published tables was trained."""


@dataclass(frozen=True)
class TrainedNetworks:
    """The published figures of all paths, in the order of ``space.enumerate()``.

    Parameters
    ----------
    space
        Labels and choices.
    codes
        What stands for each path in the publication.
    accuracies
        Test accuracy in percent of each training from scratch, shape (num_paths, 3).
    params
        Parameters, shape (num_paths,).
    flops
        Multiply-adds, shape (num_paths,).
    """

    space: PathSpace
    codes: Sequence[str]
    accuracies: npt.NDArray[np.float64]
    params: npt.NDArray[np.int64]
    flops: npt.NDArray[np.int64]

    def index(self, path: Mapping[str, Choice]) -> int:
        """Return the position of a path in the arrays. Raises PathError."""
        return int(np.ravel_multi_index(self.space.key(path), self.space.num_choices))

    def accuracy(self, path: Mapping[str, Choice]) -> float:
        """Return a path's mean test accuracy in percent. Raises PathError."""
        return float(self.accuracies[self.index(path)].mean())


def read_networks(
    content: Any,
    file: str | os.PathLike[str],
    space: PathSpace,
    codes: Sequence[str],
    benchmark: str,
) -> TrainedNetworks:
    """Check and return the published figures of all networks.

    Parameters
    ----------
    content
        Code to ``test_acc`` (a list), ``params`` and ``flops``, and more.
    file
        Where it is from, for messages.
    space
        Labels and choices.
    codes
        Those of all paths, in the order of ``space.enumerate()``.
    benchmark
        Its name, for messages.

    Raises
    ------
    DataError
        It is not the whole table; the first code that is wrong is named.
    """
    if not isinstance(content, dict):
        raise DataError(f"{file}: must be one JSON object, code to figures.")
    known = set(codes)
    unknown = [code for code in content if code not in known]
    if unknown:
        raise DataError(f"{file}: {shown(unknown[0])} is no code of {benchmark}.")
    missing = [code for code in codes if code not in content]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(codes)} networks are missing, '{missing[0]}' first."
        )
    for code in codes:
        if problem := _problem(content[code]):
            raise DataError(f"{file}: network '{code}': {problem}.")
    entries = [content[code] for code in codes]
    return TrainedNetworks(
        space,
        codes,
        np.array([entry["test_acc"] for entry in entries], dtype=np.float64),
        np.array([entry["params"] for entry in entries], dtype=np.int64),
        np.array([entry["flops"] for entry in entries], dtype=np.int64),
    )


def _problem(entry: Any) -> str:
    """Return what is wrong with the figures of a network, or ``""``."""
    if not isinstance(entry, dict):
        return f"must be a JSON object, got {shown(entry)}"
    accuracies = entry.get("test_acc")
    if not isinstance(accuracies, list) or len(accuracies) != NUM_TRAININGS:
        return f"test_acc must be a list of {NUM_TRAININGS} numbers, got {shown(accuracies)}"
    for number in accuracies:
        if type(number) not in (int, float) or not 0 <= number <= 100:
            return f"test_acc must be percentages, got {shown(number)}"
    for name in ("params", "flops"):
        if type(entry.get(name)) is not int or not 1 <= entry[name] <= MAX_COST:
            return f"{name} must be a whole number above 0, got {shown(entry.get(name))}"
    return ""
