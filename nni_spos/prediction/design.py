"""Which paths say most about all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from nni_spos.path import Indices

RIDGE = 0.1
"""Prior precision of each effect, in units of one observation: designs smaller than the number of
effects are defined too.
"""


def d_optimal(
    pool: Indices, num_choices: Sequence[int], known: Indices | None = None
) -> Iterator[int]:
    """Yield positions in a pool of paths: always the one whose result is least certain.

    By the additive model, in which every choice has an effect of its own. That is the greedy way to
    a D-optimal design. A path that is yielded counts as known from then on.

    Parameters
    ----------
    pool
        Paths to choose from, different ones, shape (num_paths, num_labels).
    num_choices
        Of each label.
    known
        Paths that are known already; none by default.
    """
    offsets = np.concatenate([[0], np.cumsum(num_choices)])[:-1]
    covariance = np.eye(sum(num_choices)) / RIDGE
    for row in [] if known is None else np.asarray(known):
        _observe(covariance, row + offsets)
    left = np.ones(len(pool), dtype=bool)
    places = np.asarray(pool) + offsets
    while left.any():
        variances = covariance[places[:, :, None], places[:, None, :]].sum(axis=(1, 2))
        chosen = int(np.where(left, variances, -np.inf).argmax())
        left[chosen] = False
        _observe(covariance, places[chosen])
        yield chosen


def _observe(covariance: np.ndarray, places: np.ndarray) -> None:
    """Let a result of a path, whose choices are at some places, be known."""
    column = covariance[:, places].sum(axis=1)
    covariance -= np.outer(column, column) / (1 + column[places].sum())
