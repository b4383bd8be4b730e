"""Which choices a score ranks too high or too low: statistics of plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.linalg import block_diag

from nni_spos.path import Choice, Indices, PathSpace

PATHS_PER_BIAS = 2
"""Paths for each number of the fit, below which nothing is estimated."""

STANDARD_ERRORS = 2
"""How far from 0 a bias is that is worth a look, in standard errors."""


@dataclass(frozen=True)
class ChoiceBias:
    """How far a score misplaces the paths that make a choice.

    Parameters
    ----------
    label
        Of the choice unit.
    choice
        One of its choices.
    bias
        How much higher the score ranks paths with the choice than their stand-alone accuracy does,
        in percentiles of the ranking, compared with the mean over the choices of the unit and with
        all other choices alike. The biases of a unit add up to 0.
    standard_error
        Of the bias, in percentiles.
    """

    label: str
    choice: Choice
    bias: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.label}={self.choice} {self.bias:+.1f} ± {self.standard_error:.1f}"

    @property
    def stands_out(self) -> bool:
        """Whether it is too far from 0 to be the accident of a few paths."""
        return abs(self.bias) > STANDARD_ERRORS * self.standard_error


def choice_biases(
    space: PathSpace, indices: Indices, scores: Sequence[float], accuracies: Sequence[float]
) -> tuple[ChoiceBias, ...]:
    """Explain by their choices how far paths are misplaced, by least squares.

    The difference of a path's percentiles, by score and by accuracy, is taken for a sum of one
    number for each of its choices; ties have their mean percentile.

    Parameters
    ----------
    space
        Labels and choices.
    indices
        The paths, shape (num_paths, num_labels).
    scores
        Of each path; the highest is the best.
    accuracies
        What each path reaches alone, such as an accuracy in percent.

    Returns
    -------
    All choices of the units with more than one, in the order of the space. None at all if there
    are fewer than `PATHS_PER_BIAS` paths for each number of the fit, or if these do not tell the
    choices apart, as where one is in no path.

    Examples
    --------
    >>> space = PathSpace({"layer_1": ["k3", "k5"], "layer_2": ["k3", "k5"]})
    >>> paths = np.tile(space.enumerate(), (2, 1))
    >>> [str(x) for x in choice_biases(space, paths, [1, 2, 3, 4] * 2, [1, 3, 2, 4] * 2)]
    ['layer_1=k3 -12.5 ± 0.0', 'layer_1=k5 +12.5 ± 0.0', 'layer_2=k3 +12.5 ± 0.0', ...]
    """
    contrasts = block_diag(*map(_contrasts, space.num_choices))
    chosen = [
        np.eye(number)[column] for number, column in zip(space.num_choices, indices.T, strict=True)
    ]
    design = np.hstack([np.ones((len(indices), 1)), np.hstack(chosen) @ contrasts])
    num_paths, num_numbers = design.shape
    if num_paths < PATHS_PER_BIAS * num_numbers or np.linalg.matrix_rank(design) < num_numbers:
        return ()
    misplaced = (stats.rankdata(scores) - stats.rankdata(accuracies)) * 100 / num_paths
    inverse = np.linalg.inv(design.T @ design)
    numbers = inverse @ design.T @ misplaced
    residuals = misplaced - design @ numbers
    covariance = inverse * (residuals @ residuals) / (num_paths - num_numbers)
    biases = contrasts @ numbers[1:]
    variances = np.einsum("ij,jk,ik->i", contrasts, covariance[1:, 1:], contrasts)
    choices = [(label, choice) for label, choices in space.items() for choice in choices]
    rows = zip(choices, biases.tolist(), np.sqrt(variances).tolist(), strict=True)
    return tuple(ChoiceBias(*choice, *row) for choice, *row in rows if len(space[choice[0]]) > 1)


def format_biases(biases: Sequence[ChoiceBias], number: int = 6) -> str:
    """Return those that stand out, the largest first and `number` at most, in one line."""
    found = sorted((x for x in biases if x.stands_out), key=lambda x: -abs(x.bias))
    return ", ".join(map(str, found[:number])) or "none that stands out"


def _contrasts(num_choices: int) -> npt.NDArray[np.float64]:
    """Return columns that add up to 0, shape (num_choices, num_choices - 1)."""
    return np.vstack([np.eye(num_choices - 1), np.full((1, num_choices - 1), -1.0)])
