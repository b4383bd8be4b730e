"""How fast the machine was while each of many measurements was made."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

WINDOW = 9
"""Measurements in turn that say how fast the machine is in the middle of them."""
PASSES = 10
"""More change nothing: medians of networks and of the machine's speed agree by then."""


def local_slowness(milliseconds: npt.ArrayLike, networks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return how much longer than usual everything took, at each measurement.

    A machine that has other work, or none of its own as a virtual one, changes its speed within
    tenths of a second. Networks that are measured one after the other get slower together, so a
    running median of measurements, each as a share of what its network usually takes, is the
    machine's speed.

    Parameters
    ----------
    milliseconds
        Shape (measurements,), in the order in which they were made.
    networks
        Shape (measurements,): the number of the network, from 0 on, each several times.

    >>> steady = [1.0, 5.0, 2.0, 1.0, 5.0, 2.0, 1.0, 5.0, 2.0] * 2
    >>> times = [ms * (2 if i > 8 else 1) for i, ms in enumerate(steady)]
    >>> slowness = local_slowness(times, [0, 1, 2] * 6)
    >>> round(float(slowness[-1] / slowness[0]), 3)
    2.0
    """
    times = np.log(np.asarray(milliseconds, dtype=np.float64))
    numbers = np.asarray(networks)
    usual = _medians(times, numbers)
    slowness = np.zeros(len(times))
    for _ in range(PASSES):
        slowness = median_filter(times - usual[numbers], WINDOW, mode="nearest")
        usual = _medians(times - slowness, numbers)
    found: npt.NDArray[np.float64] = np.exp(slowness - np.median(slowness))
    return found


def _medians(values: npt.NDArray[np.float64], groups: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.array([np.median(values[groups == i]) for i in range(groups.max() + 1)])
