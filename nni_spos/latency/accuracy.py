"""How well predicted latencies are those that were measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mape(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Return the mean absolute percentage error of predictions.

    >>> mape([9.0, 22.0], [10.0, 20.0])
    10.0
    """
    actual = np.asarray(measured, dtype=np.float64)
    return float(np.mean(np.abs(np.asarray(predicted) - actual) / actual) * 100)


def spearman(one: npt.ArrayLike, other: npt.ArrayLike) -> float | None:
    """Return Spearman's rank correlation, ties with the mean of their ranks.

    None if all values of one side are the same, where it is not defined.

    >>> spearman([1.0, 2.0, 3.0], [10.0, 30.0, 20.0])
    0.5
    """
    ranks = [_ranks(one), _ranks(other)]
    if any(np.ptp(column) == 0 for column in ranks):
        return None
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


def _ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: npt.NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[places]
