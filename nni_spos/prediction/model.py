"""A Gaussian process that says what paths will reach, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nni_spos.cost_table import Costs
from nni_spos.errors import SearchError
from nni_spos.path import Indices, PathSpace
from nni_spos.prediction.inputs import Numbers, PathInputs
from nni_spos.prediction.kernel import (
    MEAN_VARIANCE,
    PARTS,
    Coordinates,
    Scales,
    choice_matches,
    coordinates,
    covariance,
    covariance_parts,
    variances,
)

CEILINGS = (0.0, 1.0, 100.0)
"""Results below one of these approach it: log-likelihoods, shares and percentages."""

MOST_FITTED = 160
"""Results that the scales are estimated from; more say little about these, and cost much."""

BLOCK = 8192
"""Paths that are predicted at a time, which bounds the memory."""

# Log of: a variance for each part, the length, the power, the noise. Where there are few results
# they stay near these.
CENTRE = np.log([0.5, 0.1, 0.1, 0.05, 0.3, 1.0, 1.0, 0.7, 0.05])
SPREAD = np.array([1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 0.7, 0.5, 1.5])
LOW = np.log([1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 0.2, 0.15, 1e-4])
HIGH = np.log([50, 50, 50, 50, 50, 50, 10, 2.5, 2.0])

SMOOTH = PARTS.index("smooth")

PathRows = Indices | Sequence[Mapping[str, Any]]


class PathModel:
    """Learn from some paths' results what all others will reach.

    A Gaussian process. Its covariance is a sum: of the total size of a path, of the sizes of its
    stages, of the size of each unit, of each single choice, and of a smooth function of all sizes.
    The size of a choice is its cost, as a part of that of the unit's dearest, to some power. The
    power, the share of each part and the noise are those that make the results most probable,
    tempered by a prior which matters where there are few results.

    Results that approach a ceiling are modelled by the logarithm of what they lack, so that a
    percentage point counts more the nearer it is to 100.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric.

    Examples
    --------
    >>> from nni_spos.testing.small_space import COSTS, SPACE
    >>> paths = SPACE.enumerate()
    >>> model = PathModel(SPACE, COSTS).fit(paths[::2], 90 + paths[::2].sum(axis=1))
    >>> mean, deviation = model.predict(paths)
    >>> mean.shape, bool((deviation > 0).all())
    ((12,), True)
    """

    def __init__(self, space: PathSpace, costs: Costs):
        self.space = space
        self.inputs = PathInputs(space, costs)
        self._parameters = CENTRE.copy()
        self._known: Coordinates | None = None

    @property
    def scales(self) -> Scales:
        """What the covariance depends on, as it was estimated last."""
        return _scales(self._parameters)

    def fit(
        self,
        paths: PathRows,
        results: Sequence[float] | Numbers,
        extra: Sequence[float] | Numbers | None = None,
        *,
        estimate: bool = True,
    ) -> PathModel:
        """Learn from results, and forget those of an earlier call.

        Parameters
        ----------
        paths
            Label to choice of each; or positions, shape (num_paths, num_labels).
        results
            Of each path, to be as high as possible.
        extra
            A number known of every path that says something of its result, such as the score with
            a supernet's weights; then `predict` needs it too.
        estimate
            Whether the scales of the covariance are estimated anew; they cost the most time, and
            change little with a few more results.

        Returns
        -------
        The model itself.

        Raises
        ------
        PathError
            A path is not one of the space.
        SearchError
            There are fewer than two results, or one is not a finite number.
        """
        indices, values = self._indices(paths), np.asarray(results, dtype=np.float64)
        if len(values) != len(indices) or len(values) < 2 or not np.isfinite(values).all():
            raise SearchError(
                f"a model needs two results or more, one of each path, all finite numbers; got "
                f"{len(values)} of {len(indices)} paths."
            )
        below = (x for x in CEILINGS if (values <= x).all() and (values < x).any())
        self.ceiling = next(below, None)
        self._set_extra(extra)
        self._least_gap = self._find_least_gap(values)
        latent = self._to_latent(values)
        self._centre, self._spread = latent.mean(), max(float(latent.std()), 1e-9)
        targets = (latent - self._centre) / self._spread
        standard = self._standard(extra)
        if estimate:
            self._estimate(indices, targets, standard)
        self._condition(indices, targets, standard)
        return self

    def predict(
        self, paths: PathRows, extra: Sequence[float] | Numbers | None = None
    ) -> tuple[Numbers, Numbers]:
        """Return what paths will reach, and the standard deviation of that.

        Parameters
        ----------
        paths, extra
            As for `fit`.

        Returns
        -------
        Each of shape (num_paths,), in the unit of the results; noise is not a part of the
        deviation.
        """
        return self._to_results(*self.predict_latent(paths, extra))

    def _to_results(self, mean: Numbers, deviation: Numbers) -> tuple[Numbers, Numbers]:
        if self.ceiling is None:
            return self._centre + self._spread * mean, self._spread * deviation
        gap = np.exp(-(self._centre + self._spread * mean))
        return self.ceiling - gap, gap * self._spread * deviation

    def predict_latent(
        self, paths: PathRows, extra: Sequence[float] | Numbers | None = None
    ) -> tuple[Numbers, Numbers]:
        """Return mean and standard deviation of the transformed results, where they are normal.

        These rise with the results, and have the mean 0 and the variance 1 over the known ones.
        """
        indices, standard = self._indices(paths), self._standard(extra)
        means, deviations = [np.zeros(0)], [np.zeros(0)]
        for begin in range(0, len(indices), BLOCK):
            rows = slice(begin, begin + BLOCK)
            part = Posterior(self, indices[rows], None if standard is None else standard[rows])
            means.append(part.mean)
            deviations.append(np.sqrt(part.variance))
        return np.concatenate(means), np.concatenate(deviations)

    def leave_one_out(self) -> tuple[Numbers, Numbers]:
        """Return what each known path would be predicted to reach without its own result.

        The scales of the covariance stay those of all results, so this is a little too good for
        the deviation. For the order it is too bad: each path is predicted by a model of its own.

        Returns
        -------
        Mean and standard deviation, noise included, each of shape (num_paths,), in the unit of the
        results.
        """
        from scipy.linalg import cho_solve

        inverse = cho_solve((self._factor, True), np.eye(len(self._weights)))
        variance = 1 / np.diag(inverse)
        mean = self._targets - self._weights * variance
        return self._to_results(mean, np.sqrt(variance))

    def _indices(self, paths: PathRows) -> Indices:
        return paths if isinstance(paths, np.ndarray) else self.space.encode(paths)

    def _set_extra(self, extra: Any) -> None:
        values = np.asarray([] if extra is None else extra, dtype=np.float64)
        self._extra_mean = float(values.mean()) if len(values) else 0.0
        self._extra_spread = max(float(values.std()), 1e-9) if len(values) else 0.0

    def _standard(self, extra: Any) -> Numbers | None:
        if (extra is None) != (not self._extra_spread):
            raise SearchError("give a further input of all paths or of none.")
        if extra is None:
            return None
        return (np.asarray(extra, dtype=np.float64) - self._extra_mean) / self._extra_spread

    def _find_least_gap(self, values: Numbers) -> float:
        """Return what a result that has reached the ceiling counts as lacking."""
        gaps = np.array([]) if self.ceiling is None else self.ceiling - values
        positive = gaps[gaps > 0]
        return float(positive.min()) / 2 if len(positive) else 1.0

    def _to_latent(self, values: Numbers) -> Numbers:
        if self.ceiling is None:
            return values
        return -np.log(np.maximum(self.ceiling - values, self._least_gap))

    def _estimate(self, indices: Indices, targets: Numbers, extra: Numbers | None) -> None:
        """Find the scales of the covariance that make the results most probable."""
        from scipy.optimize import minimize  # takes long to import

        if len(targets) > MOST_FITTED:
            # Evenly in the order in which they are given, the last one included.
            rows = np.linspace(0, len(targets) - 1, MOST_FITTED).round().astype(int)
            indices, targets = indices[rows], targets[rows]
            extra = None if extra is None else extra[rows]
        evidence = _Evidence(self.inputs, indices, targets, extra)
        starts = [self._parameters, CENTRE] if (self._parameters != CENTRE).any() else [CENTRE]
        found = [
            minimize(
                evidence,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=list(zip(LOW, HIGH, strict=True)),
                options={"maxiter": 50},
            )
            for start in starts
        ]
        self._parameters = min(found, key=lambda x: float(x.fun)).x

    def _condition(self, indices: Indices, targets: Numbers, extra: Numbers | None) -> None:
        """Prepare predictions from results."""
        from scipy.linalg import cho_solve

        scales = self.scales
        self._targets = targets
        self._known = coordinates(self.inputs, indices, scales.power, extra)
        matrix = covariance(self._known, self._known, scales)
        matrix[np.diag_indices_from(matrix)] += scales.noise
        self._factor = np.linalg.cholesky(matrix)
        self._weights = cho_solve((self._factor, True), targets)


class Posterior:
    """What a fitted model says of some paths, before the transformation to results.

    Parameters
    ----------
    model
        A fitted one.
    indices
        Paths as positions, shape (num_paths, num_labels).
    extra
        Their further input, standardised; None without.

    Attributes
    ----------
    mean, variance : ndarray, shape (num_paths,)
        Of each path.
    """

    def __init__(self, model: PathModel, indices: Indices, extra: Numbers | None = None):
        from scipy.linalg import solve_triangular

        assert model._known is not None, "a model is fitted before it predicts"
        self._scales = model.scales
        self._paths = coordinates(model.inputs, indices, self._scales.power, extra)
        cross = covariance(model._known, self._paths, self._scales)
        self.mean = np.asarray(model._weights @ cross)
        self._explained = solve_triangular(model._factor, cross, lower=True, check_finite=False)
        prior = variances(self._paths, self._scales)
        explained = np.einsum("ij,ij->j", self._explained, self._explained)
        self.variance = np.maximum(prior - explained, 1e-10)

    def covariance_with(self, place: int) -> Numbers:
        """Return the covariance of all paths with one of them, shape (num_paths,)."""
        one = Coordinates(
            self._paths.total[[place]],
            self._paths.stage[[place]],
            self._paths.unit[[place]],
            self._paths.places[[place]],
            None if self._paths.extra is None else self._paths.extra[[place]],
        )
        prior = covariance(self._paths, one, self._scales)[:, 0]
        return np.asarray(prior - self._explained[:, place] @ self._explained)


class _Evidence:
    """How improbable results are, and the derivative, as a function of the parameters."""

    STEP = 1e-4

    def __init__(
        self, inputs: PathInputs, indices: Indices, targets: Numbers, extra: Numbers | None
    ):
        self._inputs = inputs
        self._indices = indices
        self._targets = targets
        self._extra = extra
        self._matches: Numbers | None = None

    def __call__(self, parameters: Numbers) -> tuple[float, Numbers]:
        """Return the negative logarithm of the posterior of the parameters, and its gradient."""
        from scipy.linalg import cho_solve

        scales = _scales(parameters)
        parts = self._parts(parameters)
        matrix = sum(
            (v * part for v, part in zip(scales.variances, parts, strict=False)),
            np.full(parts[0].shape, MEAN_VARIANCE),
        )
        derivatives = [v * part for v, part in zip(scales.variances, parts, strict=False)]
        derivatives += [np.zeros_like(matrix)] * (len(PARTS) - len(parts))
        smooth = parts[SMOOTH]
        # The length is in the exponent, squared and inverse.
        slope = -2 * smooth * np.log(np.maximum(smooth, 1e-300))
        derivatives.append(scales.variances[SMOOTH] * slope)
        moved = parameters.copy()
        moved[-2] += self.STEP
        derivatives.append(
            sum(
                v * (there - here)
                for v, here, there in zip(scales.variances, parts, self._parts(moved), strict=False)
            )
            / self.STEP
        )
        matrix[np.diag_indices_from(matrix)] += scales.noise
        factor = np.linalg.cholesky(matrix)
        weights = cho_solve((factor, True), self._targets)
        inverse = cho_solve((factor, True), np.eye(len(weights)))
        rise = inverse - np.outer(weights, weights)
        gradient = [0.5 * np.vdot(rise, x) for x in derivatives]
        gradient.append(0.5 * scales.noise * np.trace(rise))
        value = 0.5 * self._targets @ weights + np.log(np.diag(factor)).sum()
        off = (parameters - CENTRE) / SPREAD
        return float(value + 0.5 * off @ off), np.array(gradient) + off / SPREAD

    def _parts(self, parameters: Numbers) -> list[Numbers]:
        scales = _scales(parameters)
        own = coordinates(self._inputs, self._indices, scales.power, self._extra)
        if self._matches is None:
            self._matches = choice_matches(own, own)
        return covariance_parts(own, own, scales.length, self._matches)


def _scales(parameters: Numbers) -> Scales:
    *parts, length, power, noise = np.exp(parameters)
    return Scales(np.array(parts), float(length), float(power), float(noise))
