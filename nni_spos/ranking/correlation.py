"""How well a score ranks paths: statistics of plain numbers, without PyTorch and NNI."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from nni_spos.display.tables import Table, as_text
from nni_spos.latency.accuracy import spearman
from nni_spos.tasks.base import Figure

NUM_RESAMPLES = 1000
"""Resamples of the paths behind an interval."""

CONFIDENCE = 95.0
"""Of an interval, in percent."""

TOP_KS = (10, 50, 100)
"""How many of the best are compared, as far as there are more paths."""

TOP1 = Figure("top1", unit="%", digits=2)
"""How what paths reach alone is shown, unless a task says otherwise."""

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats, Floats], float]


@dataclass(frozen=True)
class Estimate:
    """A statistic of paths that were drawn, with its bootstrap interval.

    Parameters
    ----------
    value
        Of the paths; None if it is not defined, since all of them score alike.
    low, high
        Percentiles 2.5 and 97.5 of the resamples in which it is defined.
    """

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "undefined"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class TopOverlap:
    """How many of the k best paths are among the k best by a score.

    Parameters
    ----------
    k
        How many.
    share
        Of these k, from 0 to 1.
    chance
        The share that a random ranking has on average.
    """

    k: int
    share: float
    chance: float


@dataclass(frozen=True)
class RankCorrelation:
    """How well a score ranks paths by their stand-alone accuracy.

    Parameters
    ----------
    tau
        Kendall's tau-b.
    rho
        Spearman's rank correlation.
    top
        Overlap of the best, for every k of `TOP_KS` below the number of paths.
    chosen
        What the path that scores best reaches alone, such as an accuracy in percent.
    best
        That of the best path.
    """

    tau: Estimate
    rho: Estimate
    top: tuple[TopOverlap, ...]
    chosen: float
    best: float

    @property
    def regret(self) -> float:
        """What the path which scores best lacks to the best one, such as percentage points."""
        return self.best - self.chosen

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {**dataclasses.asdict(self), "regret": self.regret}


def rank(scores: Sequence[float], accuracies: Sequence[float], seed: int = 0) -> RankCorrelation:
    """Compare the order of paths by a score with that by stand-alone accuracy.

    Where scores tie, every order of the tied paths counts alike: tau-b and mean ranks do not
    depend on one, overlap and accuracy are averages over all.

    Parameters
    ----------
    scores
        Of each path; the highest is the best.
    accuracies
        What each path reaches alone, such as an accuracy in percent; higher is better.
    seed
        Of the resamples' own generator.

    Examples
    --------
    >>> rank([1, 2, 3], [90, 92, 91]).tau.value  # two of three pairs agree, one does not
    0.333...
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (scores, accuracies))
    return RankCorrelation(
        tau=estimate(kendall_tau, x, y, seed),
        rho=estimate(spearman_rho, x, y, seed),
        top=tuple(top_overlap(x, y, k) for k in TOP_KS if k < len(x)),
        chosen=float(y[x == x.max()].mean()),
        best=float(y.max()),
    )


def kendall_tau(x: Floats, y: Floats) -> float:
    """Return Kendall's tau-b, or NaN if all values of one side are alike."""
    # Bounds of the p-value are not of interest, and an exact one takes long.
    return float(stats.kendalltau(x, y, method="asymptotic").statistic)


def spearman_rho(x: Floats, y: Floats) -> float:
    """Return the correlation of the ranks, or NaN if all values of one side are alike."""
    rho = spearman(x, y)
    return math.nan if rho is None else rho


def estimate(statistic: Statistic, x: Floats, y: Floats, seed: int) -> Estimate:
    """Return a statistic of paths with its percentile interval, paths drawn with replacement."""
    value = statistic(x, y)
    if math.isnan(value):
        return Estimate(None, None, None)
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(0, len(x), len(x)) for _ in range(NUM_RESAMPLES))
    resampled = [statistic(x[rows], y[rows]) for rows in drawn]
    tail = (100 - CONFIDENCE) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def top_overlap(x: Floats, y: Floats, k: int) -> TopOverlap:
    """Return how many of the k highest by `y` are among the k highest by `x`, on average."""
    share = float(_membership(x, k) @ _membership(y, k)) / k
    return TopOverlap(k, share, k / len(x))


def _membership(values: Floats, k: int) -> Floats:
    """Return how probable each is among the k highest if ties are broken at random."""
    limit = np.sort(values)[-k]
    above, tied = values > limit, values == limit
    return above + tied * ((k - above.sum()) / tied.sum())


def format_rankings(rankings: Mapping[str, RankCorrelation], figure: Figure = TOP1) -> str:
    """Return one line for each score, under a heading, and what chance gives.

    Parameters
    ----------
    rankings
        Score to ranking, all of the same paths.
    figure
        What the paths reach alone.
    """
    first = next(iter(rankings.values()))
    heading = ["score", f"Kendall tau [{CONFIDENCE:g} %]", f"Spearman rho [{CONFIDENCE:g} %]"]
    header = [*heading, *(f"top {x.k}" for x in first.top), "best by score", "regret"]
    rows = []
    for name, ranking in rankings.items():
        shares = [f"{x.share:.1%}" for x in ranking.top]
        cells = [figure.format(ranking.chosen), f"{ranking.regret:.{figure.digits}f}"]
        rows.append([name, str(ranking.tau), str(ranking.rho), *shares, *cells])
    rows.append(["chance", "0", "0", *(f"{x.chance:.1%}" for x in first.top), "", ""])
    return as_text(Table(header, rows))
