"""The paper's better prior: paths alike among those whose cost lies in an interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs, CostTable
from nni_spos.counting import PathCounter, Region, UniformRegion, describe_extent
from nni_spos.errors import ConstraintError, CostError, InfeasibleError, RecipeError
from nni_spos.metrics.units import format_metric, unknown_metric
from nni_spos.path import Choice, Indices, PathSpace
from nni_spos.priors.base import Prior
from nni_spos.priors.uniform import UniformPrior
from nni_spos.recipe.rules import CONSTRAINTS, QUANTILES, parse_constraints
from nni_spos.recipe.settings import TEXT, one_of, setting

Interval = tuple[float, float] | Constraint
"""Lowest and highest cost allowed, both included."""

SPOS_BINS: tuple[tuple[float, float], ...] = tuple(
    (low * 1e6, (low + 10) * 1e6) for low in range(290, 360, 10)
)
"""The released code's bins for the ShuffleNetV2 space: 290-300, ..., 350-360 MFLOPs."""

METHODS = ("counting", "rejection")

NUM_SAMPLES = 100_000
"""Uniform paths that a cost distribution is estimated from where it cannot be counted."""


@dataclass(frozen=True)
class ConstrainedSettings:
    """What a recipe says of the constrained prior: its bins, one way or the other.

    Parameters
    ----------
    prior_bins
        Intervals of one cost, such as ``290M <= flops <= 300M``.
    prior_quantiles
        Shares of all paths by their cost, between which the bins lie; those that part the space
        into equal shares make the uniform prior again.
    prior_metric
        Cost that the quantiles are of.
    prior_method
        How paths of a bin are found: by ``counting``, or by ``rejection`` of uniform ones, which
        works where costs hang together too much to be counted.
    """

    prior_bins: tuple[Constraint, ...] = setting(CONSTRAINTS, (), parse_constraints)
    prior_quantiles: tuple[float, ...] = setting(QUANTILES, (), tuple)
    prior_metric: str = setting(TEXT, "flops")
    prior_method: str = setting(one_of(*METHODS), "counting")

    def __post_init__(self) -> None:
        if bool(self.prior_bins) == bool(self.prior_quantiles):
            raise RecipeError(
                "the constrained prior needs either prior_bins, e.g. ['290M <= flops <= 300M'], "
                "or prior_quantiles, e.g. [0, 0.25, 0.5]."
            )
        if len({limit.metric for limit in self.prior_bins}) > 1:
            raise RecipeError("prior_bins: all bins must limit the same metric.")

    @property
    def metric(self) -> str:
        """The cost that the bins are of."""
        return self.prior_bins[0].metric if self.prior_bins else self.prior_metric

    @property
    def costs(self) -> tuple[str, ...]:
        """The metrics that the prior depends on."""
        return (self.metric,)


class ConstrainedPrior(Prior):
    """Draw paths uniformly among those whose cost lies in an interval.

    Parameters
    ----------
    space
        Labels and their choices.
    cost
        Table of the constrained metric, e.g. multiply-adds for one 3x224x224 image.
    bins
        Closed intervals in the unit of `cost`, as (low, high) or constraints, or a single one;
        each draw first picks one uniformly, then a path in it. `SPOS_BINS` are the paper's.
    seed
        Seed of this prior's own generators.
    method
        ``counting`` (see `nni_spos.counting`) draws in the same time however few paths a bin
        holds. ``rejection`` tries uniform paths, within bounds; it needs no counting, so it
        works with tables whose factors hang together too much for that.

    Raises
    ------
    InfeasibleError
        A bin holds no path; the message gives the nearest costs and the extent of the space.
        With rejection also: too few paths were found in it, here or in `draw`.
    ConstraintError
        A bin is not an interval, or is a constraint on another metric.
    CostError
        The table belongs to another space, or its paths cannot be counted: ``rejection`` can.

    Examples
    --------
    >>> from nni_spos.cost_table import Factor
    >>> space = PathSpace({f"layer_{i}": ["k3", "k5", "k7"] for i in range(20)})
    >>> cost = CostTable("flops", space, 0, [Factor((x,), np.array([9, 25, 49])) for x in space])
    >>> prior = ConstrainedPrior(space, cost, [(180, 200), (950, 980)], seed=1)
    >>> prior.count()
    (21, 21)
    >>> cost.price(prior.path(0)) in (180, 196, 956, 980)
    True

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 3.
    """

    Settings: ClassVar[type[Any]] = ConstrainedSettings

    def __init__(
        self,
        space: PathSpace,
        cost: CostTable,
        bins: Sequence[Interval] | Interval,
        seed: int = 0,
        method: str = "counting",
    ):
        super().__init__(space, seed)
        if cost.space != space:
            raise CostError(f"cost table {cost.metric} was made for another search space.")
        if method not in METHODS:
            raise ConstraintError(f"method {method!r} is unknown. Methods: {', '.join(METHODS)}.")
        self.cost = cost
        self.metric = cost.metric
        self.method = method
        found = _read_bins(cost.metric, bins)
        are_shares = any(limit.is_share for limit in found)
        dearest = float(cost.dearest()[0]) if are_shares else math.nan
        self.bins = tuple(limit.of(dearest) for limit in found)
        self._regions: list[Region] = []
        counter = _counter(cost) if method == "counting" else None
        for limit in self.bins:
            region = counter.within(limit) if counter else UniformRegion(space, [cost], [limit])
            if region.is_empty():
                raise _nothing_in(limit, counter) if counter else _none_found(region, limit)
            self._regions.append(region)

    @classmethod
    def build(
        cls, space: PathSpace, costs: Costs, seed: int, settings: ConstrainedSettings
    ) -> ConstrainedPrior:
        metric = settings.metric
        if metric not in costs:
            raise ConstraintError(f"prior: {unknown_metric(metric, costs)}")
        cost = costs[metric]
        bins = settings.prior_bins or quantile_bins(cost, settings.prior_quantiles)
        return cls(space, cost, bins, seed, settings.prior_method)

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        chosen = generator.integers(len(self.bins), size=num_paths)
        paths = np.empty((num_paths, len(self.space)), dtype=np.int64)
        for number, region in enumerate(self._regions):
            places = np.flatnonzero(chosen == number)
            paths[places] = region.draw(len(places), generator)
        return paths

    @property
    def counts_exactly(self) -> bool:
        """Whether `count` and `marginals` are exact and not estimates."""
        return all(region.counts_exactly for region in self._regions)

    @property
    def acceptance(self) -> tuple[float, ...]:
        """For each bin the share of the proposed paths that lay in it, measured so far."""
        return tuple(region.acceptance for region in self._regions)

    def count(self) -> tuple[int, ...]:
        """Return the number of paths of each bin; estimated where counting is not possible.

        Whole-number costs are counted exactly (see `counts_exactly`). Paths on a bound that two
        bins share are in both.
        """
        return tuple(region.count() for region in self._regions)

    def marginals(self) -> dict[str, dict[Choice, float]]:
        """Return the probability of each choice of each label.

        Under a constraint the choices of a label are not alike, although all paths are: more
        paths go with a cheap choice when the limit is tight.
        """
        total = {label: dict.fromkeys(choices, 0.0) for label, choices in self.space.items()}
        for region in self._regions:
            for label, probs in region.marginals().items():
                for choice, prob in probs.items():
                    total[label][choice] += prob / len(self._regions)
        return total

    def describe(self) -> list[str]:
        about = "" if self.counts_exactly else "about "
        return [
            f"{limit}: {about}{count:,} paths ({100 * count / self.space.size:.3g} %)"
            for limit, count in zip(self.bins, self.count(), strict=True)
        ]


def quantile_bins(cost: CostTable, quantiles: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return bins between quantiles of the costs of all paths.

    Parameters
    ----------
    cost
        Table of the metric.
    quantiles
        Rising shares of the space's paths, from 0 to 1: two or more, one more than bins. The
        first bin begins at the first quantile, each further one above the end of the one before.

    Returns
    -------
    Closed intervals. Exact by counting where costs are whole multiples of a number that is large
    enough, else from 100,000 uniform paths. Equal shares from 0 to 1 give a prior that draws all
    paths alike, as the uniform one does.

    Raises
    ------
    ConstraintError
        The quantiles do not rise from 0 to 1, or a bin between two of them is empty.

    Examples
    --------
    >>> from nni_spos.cost_table import Factor
    >>> space = PathSpace({"a": ["k3", "k5"], "b": ["k3", "k5"]})
    >>> cost = CostTable("flops", space, 0, [Factor((x,), np.array([9, 25])) for x in space])
    >>> quantile_bins(cost, (0, 0.25, 1))
    ((18.0, 18.0), (34.0, 50.0))
    """
    _check_quantiles(quantiles)
    costs, weights = _distribution(cost)
    cumulative = np.cumsum(weights)
    # Rounding must not move a quantile past the cost that it falls on.
    shares = cumulative / cumulative[-1] + 1e-12
    ends = np.searchsorted(shares, np.asarray(quantiles, dtype=np.float64))
    bins = []
    first = int(ends[0])
    for number, end in enumerate(ends[1:].tolist()):
        if end < first:
            low, high = quantiles[number], quantiles[number + 1]
            raise ConstraintError(
                f"no cost of {cost.metric} lies between the quantiles {low} and {high}: both are "
                f"{format_metric(cost.metric, costs[end])}. Take them further apart."
            )
        bins.append((float(costs[first]), float(costs[end])))
        first = end + 1
    return tuple(bins)


def cost_histogram(
    cost: CostTable, edges: int | Sequence[float] = 50
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return how many paths of the space have which costs, for a plot.

    Parameters
    ----------
    cost
        Table of the metric.
    edges
        Number of intervals of the same width, or the edges of all: each interval holds its lower
        edge, the last one both.

    Returns
    -------
    Edges, shape (num_intervals + 1,), and numbers of paths, shape (num_intervals,). As exact as
    the bins of `quantile_bins`, and rounded to floats.

    Raises
    ------
    ConstraintError
        No interval, or edges that do not rise.
    """
    costs, weights = _distribution(cost)
    try:
        counts, places = np.histogram(costs, edges, weights=weights)
    except (TypeError, ValueError) as problem:
        raise ConstraintError(f"edges {edges!r:.80} are not intervals ({problem}).") from None
    return places.astype(np.float64), counts


def _read_bins(metric: str, bins: Any) -> tuple[Constraint, ...]:
    """Read one interval or several. Raises ConstraintError."""
    if isinstance(bins, Constraint) or (
        isinstance(bins, tuple | list) and len(bins) == 2 and all(map(_is_number, bins))
    ):
        bins = [bins]
    if not isinstance(bins, tuple | list) or not bins:
        raise ConstraintError(f"bins must be a list of (low, high), got {bins!r:.80}.")
    return tuple(_read_bin(metric, interval) for interval in bins)


def _read_bin(metric: str, interval: Any) -> Constraint:
    if isinstance(interval, Constraint):
        if interval.metric != metric:
            raise ConstraintError(
                f"bin '{interval}' is on another metric than the cost table, which is {metric}."
            )
        return interval
    if not (
        isinstance(interval, tuple | list) and len(interval) == 2 and all(map(_is_number, interval))
    ):
        raise ConstraintError(f"bin {interval!r:.80} is not an interval (low, high) of numbers.")
    return Constraint(metric, *interval)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer) and not isinstance(value, bool)


def _check_quantiles(quantiles: Sequence[float]) -> None:
    rising = (
        isinstance(quantiles, tuple | list)
        and len(quantiles) >= 2
        and all(map(_is_number, quantiles))
        and all(a < b for a, b in itertools.pairwise(quantiles))
    )
    if not rising or not 0 <= quantiles[0] <= quantiles[-1] <= 1:
        raise ConstraintError(
            f"quantiles {quantiles!r:.80} must be two or more numbers that rise from 0 to 1."
        )


def _counter(cost: CostTable) -> PathCounter:
    try:
        return PathCounter([cost])
    except CostError as problem:
        raise CostError(
            f"{problem} Let uniform paths be tried instead: {_written('rejection')}."
        ) from None


def _written(method: str) -> str:
    """Return how one asks for a method."""
    return f"'prior_method: {method}' in a recipe, method=\"{method}\" in Python"


def _nothing_in(limit: Constraint, counter: PathCounter) -> InfeasibleError:
    nearest = counter.describe_nearest(limit)
    low, high = counter.extent()
    return InfeasibleError(
        f"no path lies in the bin '{limit}': the nearest cost is {nearest}. "
        f"{describe_extent(limit.metric, low, high)}."
    )


def _none_found(region: Region, limit: Constraint) -> InfeasibleError:
    return InfeasibleError(
        f"none of {region.min_tries} uniform paths lies in the bin '{limit}'. Widen it, or let "
        f"its paths be counted: {_written('counting')}."
    )


def _distribution(cost: CostTable) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return costs in rising order and how many paths have each, counted or estimated."""
    try:
        counter = PathCounter([cost])
    except CostError:
        return _sampled(cost)
    if counter.exact:
        return counter.distribution()
    costs, weights = _sampled(cost)
    costs[0], costs[-1] = counter.extent()
    return costs, weights


def _sampled(cost: CostTable) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    drawn = UniformPrior(cost.space).draw(NUM_SAMPLES, np.random.default_rng(0))
    costs = np.sort(cost.price_many(drawn))
    return costs, np.full(NUM_SAMPLES, cost.space.size / NUM_SAMPLES)
