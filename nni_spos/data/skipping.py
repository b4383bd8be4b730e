"""Leaving out images that cannot be read, where a recipe wants that: ``on_error: skip``."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nni_spos.display.progress import note_progress, open_bar
from nni_spos.errors import DataError, ImagesWarning

UNWATCHED_S = 2.0
"""Seconds of reading before a progress bar is shown."""


def readable(read: Callable[[int], object], number: int, name: str) -> npt.NDArray[np.int64]:
    """Read all images, say how many cannot be read, and return the positions of the others.

    Parameters
    ----------
    read
        Reads one; raises DataError.
    number
        How many there are.
    name
        For the message.

    Raises
    ------
    DataError
        None can be read.
    """
    found = []
    reasons = []
    with open_bar(f"{name}: try images", number, "image", delay=UNWATCHED_S) as bar:
        for index in range(number):
            try:
                read(index)
                found.append(index)
            except DataError as problem:
                reasons.append(str(problem))
            bar.update()
            note_progress()
    if not found:
        raise DataError(f"{name}: none of {number} images can be read. {reasons[0]}")
    if reasons:
        text = f"{name}: {len(reasons)} of {number} images cannot be read and are left out. "
        warnings.warn(f"{text}The first: {reasons[0]}", ImagesWarning, stacklevel=3)
    return np.array(found, np.int64)
