"""Which paths are worth an evaluation: expected improvements, for several paths at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nni_spos.prediction.inputs import Numbers
from nni_spos.prediction.model import Posterior

NUM_FANTASIES = 16
"""Values that a chosen path might turn out to have, for the choice of the next one."""

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
LOG_SQRT_PI_2 = 0.5 * math.log(math.pi / 2)


def log_expected_improvement(mean: Numbers, deviation: Numbers, level: Numbers) -> Numbers:
    """Return the logarithm of how much normal variables exceed a level on average.

    It is exact where the improvement itself is too small for a number: its logarithm still says
    which of two is larger. All arguments are broadcast against each other.

    References
    ----------
    Ament et al., Unexpected Improvements to Expected Improvement for Bayesian Optimization,
    NeurIPS 2023.
    """
    from scipy.special import erfcx, ndtr  # takes long to import

    z = np.asarray((mean - level) / deviation)
    found = np.empty_like(z)
    near = z > -1
    density = np.exp(-0.5 * z[near] ** 2 - LOG_SQRT_2PI)
    found[near] = np.log(density + z[near] * ndtr(z[near]))
    far = z[~near]
    with np.errstate(divide="ignore"):
        # phi(z) (1 - |z| Phi(z) / phi(z)), where the ratio nears 1: then it is phi(z) / z^2.
        ratio = np.log(erfcx(-far / math.sqrt(2)) * -far) + LOG_SQRT_PI_2
        rest = np.where(far > -1e4, np.log(-np.expm1(np.minimum(ratio, -1e-300))), -np.inf)
    rest = np.where(far > -1e4, rest, -2 * np.log(-far))
    found[~near] = -0.5 * far**2 - LOG_SQRT_2PI + rest
    return np.asarray(found + np.log(deviation))


def choose_batch(
    posterior: Posterior,
    levels: Numbers,
    allowed: npt.NDArray[np.bool_],
    count: int,
    generator: np.random.Generator,
) -> Iterator[int]:
    """Yield positions of paths that together promise the largest improvement, greedily.

    Each path is chosen as if those before it were evaluated, on the average of what they might turn
    out to be. So the second is not the twin of the first.

    Parameters
    ----------
    posterior
        What a model says of the paths.
    levels
        What is to be exceeded, one number for each of several goals, shape (num_goals,).
    allowed
        Which paths count for which goal, shape (num_goals, num_paths).
    count
        How many paths.
    generator
        Draws what they might turn out to be.

    References
    ----------
    Wilson, Hutter and Deisenroth, Maximizing acquisition functions for Bayesian optimization,
    NeurIPS 2018: greedy maximisation of the joint expected improvement.
    """
    variance = posterior.variance.copy()
    # Shapes (fantasies, goals, paths), where all agree as long as nothing is chosen.
    means = posterior.mean[None, :]
    best = levels[None, :, None]
    left = np.ones(len(variance), dtype=bool)
    chosen: list[tuple[Numbers, float]] = []
    for _ in range(min(count, len(variance))):
        values = log_expected_improvement(means[:, None, :], np.sqrt(variance)[None, None, :], best)
        values = np.where(allowed[None], values, -np.inf)
        largest = values.max(axis=(0, 1), initial=-1e300)
        score = largest + np.log(np.exp(values - largest).sum(axis=(0, 1)) + 1e-300)
        place = int(np.where(left, score, -np.inf).argmax())
        left[place] = False
        yield place
        if len(means) == 1:
            means = np.repeat(means, NUM_FANTASIES, axis=0)
            best = np.repeat(best, NUM_FANTASIES, axis=0)
        # The covariance with it, given all that were chosen before.
        column = posterior.covariance_with(place)
        for other, scale in chosen:
            column = column - other * other[place] / scale
        scale = max(float(variance[place]), 1e-10)
        drawn = math.sqrt(scale) * generator.standard_normal(NUM_FANTASIES)
        outcome = means[:, place] + drawn
        means = means + np.outer(drawn / scale, column)
        reached = np.where(allowed[None, :, place, None], outcome[:, None, None], -np.inf)
        best = np.maximum(best, reached)
        variance = np.maximum(variance - column**2 / scale, 1e-10)
        chosen.append((column, scale))
