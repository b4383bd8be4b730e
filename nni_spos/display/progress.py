"""Progress: bars that a person can watch and that do not fill the log of a batch job; and signs of
it, by which another process can see that this one goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

Progress = Callable[[float], None]
"""Takes the share of some work that is done, above 0 and up to 1."""

WATCHED, LOGGED = 0.2, 10.0
"""Seconds between two looks of a bar on a terminal and in a file."""


_num_signs = 0


def note_progress() -> None:
    """Count a sign of progress: something that takes seconds at most is done."""
    global _num_signs
    _num_signs += 1


def num_signs() -> int:
    """Return how many signs of progress this process has given."""
    return _num_signs


def open_bar(
    title: str,
    total: int,
    unit: str,
    *,
    initial: int = 0,
    disable: bool = False,
    delay: float = 0.0,
) -> tqdm[None]:
    """Return a bar on standard error.

    Parameters
    ----------
    title
        Shown in front of it.
    total, initial
        Units altogether, and how many were done before.
    unit
        What is counted.
    disable
        Show nothing.
    delay
        Seconds before it is shown; what takes less time has no bar.
    """
    return tqdm(
        total=total,
        initial=initial,
        desc=title,
        unit=unit,
        mininterval=interval(),
        dynamic_ncols=True,
        disable=disable,
        delay=delay,
    )


def interval() -> float:
    """Return how many seconds a bar stays as it is."""
    return WATCHED if sys.stderr.isatty() else LOGGED
