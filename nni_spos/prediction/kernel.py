"""How alike two paths are: the covariance of what they reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nni_spos.path import Indices
from nni_spos.prediction.inputs import Numbers, PathInputs

PARTS = ("total", "stage", "unit", "choice", "smooth", "extra")
"""Parts of the covariance, each with a variance of its own; `extra` where there is such an input.

Sizes count in sum (total), in sums over stages (stage) and one by one (unit); each choice has an
effect of its own (choice); and what no sum can say is a smooth function of all sizes (smooth).
"""


@dataclass(frozen=True)
class Scales:
    """What the covariance depends on, beside the paths.

    Parameters
    ----------
    variances
        Of each part, in the order of `PARTS`.
    length
        How far the smooth part reaches, as a share of the distance of two random paths.
    power
        To which the sizes of choices are raised.
    noise
        Variance of a result around what the path reaches on average.
    """

    variances: Numbers
    length: float
    power: float
    noise: float


@dataclass(frozen=True)
class Coordinates:
    """Paths as the kernel sees them, for one power.

    Parameters
    ----------
    total, stage, unit
        Centred and scaled so that a random path's values have a mean square of 1 in sum: shapes
        (num_paths, 1), (num_paths, num_stages) and (num_paths, num_labels).
    places
        Of the choices among all of them, shape (num_paths, num_labels).
    extra
        A further input, shape (num_paths,), or None.
    """

    total: Numbers
    stage: Numbers
    unit: Numbers
    places: Indices
    extra: Numbers | None


def coordinates(
    inputs: PathInputs, indices: Indices, power: float, extra: Numbers | None = None
) -> Coordinates:
    """Return what the kernel needs of paths."""
    mean, variance = inputs.moments(power)
    unit = inputs.sizes(indices) ** power - mean
    # All three sums have the same variance, since labels are independent in a random path.
    unit /= np.sqrt(max(variance.sum(), 1e-12))
    stage = unit @ (inputs.stages[:, None] == np.arange(inputs.num_stages))
    places = inputs.places(indices)
    return Coordinates(unit.sum(axis=1, keepdims=True), stage, unit, places, extra)


def covariance_parts(
    left: Coordinates, right: Coordinates, length: float, matches: Numbers | None = None
) -> list[Numbers]:
    """Return the parts of the covariance, each of shape (num_left, num_right).

    Every part has a variance of about 1 over random paths. `matches` is what `choice_matches`
    returns for the paths, where it is known: nothing but the paths decides it.
    """
    unit = left.unit @ right.unit.T
    squared = _squared_distances(left, right, unit)
    parts = [
        left.total @ right.total.T,
        left.stage @ right.stage.T,
        unit,
        choice_matches(left, right) if matches is None else matches,
        np.exp(squared / (-4 * length**2)),
    ]
    if left.extra is not None and right.extra is not None:
        parts.append(np.outer(left.extra, right.extra))
    return parts


def covariance(left: Coordinates, right: Coordinates, scales: Scales) -> Numbers:
    """Return the covariance of paths without noise, shape (num_left, num_right).

    It is the weighted sum of `covariance_parts`; all but the smooth part are products of features,
    which one product of matrices computes together.
    """
    num_places = _num_places(left, right)
    ours, theirs = (_features(x, scales, num_places) for x in (left, right))
    found = np.asarray(ours @ theirs.T)
    smooth = _squared_distances(left, right, left.unit @ right.unit.T)
    smooth *= -0.25 / scales.length**2
    np.exp(smooth, out=smooth)
    smooth *= scales.variances[PARTS.index("smooth")]
    found += smooth
    return found


def _features(paths: Coordinates, scales: Scales, num_places: int) -> Numbers:
    """Return what the parts that are no smooth function are products of."""
    total, stage, unit, choice, _, extra = np.sqrt(scales.variances)
    parts = [
        np.full((len(paths.unit), 1), MEAN_VARIANCE**0.5),
        total * paths.total,
        stage * paths.stage,
        unit * paths.unit,
        _one_hot(paths, num_places) * (choice / paths.unit.shape[1] ** 0.5),
    ]
    if paths.extra is not None:
        parts.append(extra * paths.extra[:, None])
    return np.concatenate(parts, axis=1)


def variances(paths: Coordinates, scales: Scales) -> Numbers:
    """Return the prior variance of each path, shape (num_paths,)."""
    parts = [_squares(paths.total), _squares(paths.stage), _squares(paths.unit), 1.0, 1.0]
    if paths.extra is not None:
        parts.append(paths.extra**2)
    found = np.full(len(paths.unit), MEAN_VARIANCE)
    for variance, part in zip(scales.variances, parts, strict=False):
        found += variance * part
    return found


MEAN_VARIANCE = 1.0
"""Of the mean of all paths around that of those whose results are known."""


def _squares(values: Numbers) -> Numbers:
    return np.einsum("ij,ij->i", values, values)


def choice_matches(left: Coordinates, right: Coordinates) -> Numbers:
    """Return the share of labels at which two paths choose the same."""
    num_places = _num_places(left, right)
    # As a product of matrices, which is the fastest way.
    ours, theirs = (_one_hot(x, num_places) for x in (left, right))
    return np.asarray(ours @ theirs.T / left.places.shape[1])


def _num_places(*paths: Coordinates) -> int:
    return max(int(x.places.max(initial=0)) for x in paths) + 1


def _one_hot(paths: Coordinates, num_places: int) -> Numbers:
    found = np.zeros((len(paths.places), num_places))
    np.put_along_axis(found, paths.places, 1.0, axis=1)
    return found


def _squared_distances(left: Coordinates, right: Coordinates, unit: Numbers) -> Numbers:
    """Return squared distances, 2 on average of random paths; `unit` is the product of both."""
    squared = _squares(left.unit)[:, None] + _squares(right.unit)[None, :] - 2 * unit
    if left.extra is not None and right.extra is not None:
        squared += (left.extra[:, None] - right.extra[None, :]) ** 2 / left.unit.shape[1]
    return np.asarray(squared)
