import math

import numpy as np
import pytest

from nni_spos import counting
from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.counting import Region
from nni_spos.errors import ConstraintError, CostError, InfeasibleError
from nni_spos.path import PathSpace
from nni_spos.priors import SPOS_BINS, ConstrainedPrior, cost_histogram, quantile_bins

BLOCKS = PathSpace({f"layer_{i}": ["k3", "k5", "k7", "xcep"] for i in range(5)})
WIDTHS = PathSpace(
    {f"layer_{i}": ["k3", "k5"] for i in range(3)} | {f"width_{i}": [1, 2, 3] for i in range(3)}
)


def block_cost():
    generator = np.random.default_rng(0)
    factors = [Factor((x,), 10 * generator.integers(0, 12, 4)) for x in BLOCKS]
    return CostTable("flops", BLOCKS, 1000, factors)


def width_cost():
    """Block and width of a unit in one factor, in costs that are multiples of nothing."""
    generator = np.random.default_rng(0)
    factors = [Factor((f"layer_{i}", f"width_{i}"), generator.random((2, 3))) for i in range(3)]
    return CostTable("flops", WIDTHS, 1.5, factors)


def chain_cost():
    pairs = [("layer_0", "width_1"), ("width_1", "layer_2"), ("layer_2", "width_0")]
    shape = {label: len(WIDTHS[label]) for label in WIDTHS}
    factors = [
        Factor((a, b), np.arange(shape[a] * shape[b]).reshape(shape[a], -1)) for a, b in pairs
    ]
    return CostTable("flops", WIDTHS, 0, factors)


COSTS = {"block": block_cost, "width": width_cost, "chain": chain_cost}


@pytest.fixture(params=COSTS)
def cost(request):
    return COSTS[request.param]()


def critical(degrees):
    """A value that chi-square exceeds about once in 10,000 times (Wilson and Hilferty)."""
    return degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3


def bins_of(cost, *quantiles):
    costs = cost.price_many(cost.space.enumerate())
    ends = [np.quantile(costs, q, method="inverted_cdf").tolist() for q in quantiles]
    return [tuple(pair) for pair in ends]


def probabilities(cost, bins):
    """Return every path's probability, straight from the definition."""
    costs = cost.price_many(cost.space.enumerate())
    inside = [(low <= costs) & (costs <= high) for low, high in bins]
    return sum(mask / mask.sum() for mask in inside) / len(bins)


QUANTILES = {
    "one bin": [(0.3, 0.6)],
    "three bins": [(0, 0.1), (0.1, 0.5), (0.9, 1)],
    "overlapping bins": [(0.2, 0.6), (0.4, 0.8)],
}


@pytest.mark.parametrize("quantiles", QUANTILES)
@pytest.mark.parametrize("method", ["counting", "rejection"])
def test_the_distribution(cost, quantiles, method):
    bins = bins_of(cost, *QUANTILES[quantiles])
    prior = ConstrainedPrior(cost.space, cost, bins, method=method)
    drawn = prior.draw(200_000, np.random.default_rng(0))
    numbers = np.ravel_multi_index(tuple(drawn.T), cost.space.num_choices)
    probs = probabilities(cost, bins)
    counts = np.bincount(numbers, minlength=len(probs))
    assert not counts[probs == 0].any()
    expected = 200_000 * probs[probs > 0]
    assert expected.min() > 5
    statistic = ((counts[probs > 0] - expected) ** 2 / expected).sum()
    assert statistic < critical(len(expected) - 1)


def test_bins_are_drawn_alike_however_few_paths_they_hold():
    cost = block_cost()
    cheapest, dearest = cost.cheapest()[0], cost.dearest()[0]
    prior = ConstrainedPrior(BLOCKS, cost, [(cheapest, cheapest), (cheapest + 1, dearest)])
    costs = cost.price_many(prior.draw(10_000, np.random.default_rng(0)))
    assert abs((costs == cheapest).sum() - 5000) < 4 * 50


def test_count_and_marginals(cost):
    bins = bins_of(cost, (0, 0.2), (0.5, 0.7))
    paths = cost.space.enumerate()
    costs = cost.price_many(paths)
    prior = ConstrainedPrior(cost.space, cost, bins)
    assert prior.counts_exactly
    assert prior.count() == tuple(((low <= costs) & (costs <= high)).sum() for low, high in bins)
    assert all(0 < share <= 1 for share in prior.acceptance)
    probs = probabilities(cost, bins)
    marginals = prior.marginals()
    assert list(marginals) == list(cost.space)
    for column, (label, choices) in zip(paths.T, cost.space.items(), strict=True):
        expected = np.bincount(column, weights=probs).tolist()
        assert list(marginals[label]) == list(choices)
        # Where costs are no multiples of a number, measured on 100,000 draws of a bin.
        tolerance = 0.01 if cost.price(cost.cheapest()[1]) % 1 else 1e-12
        assert list(marginals[label].values()) == pytest.approx(expected, abs=tolerance)


def test_estimates_of_rejection():
    cost = block_cost()
    bins = bins_of(cost, (0, 0.2), (0.5, 0.7))
    exact = ConstrainedPrior(BLOCKS, cost, bins)
    prior = ConstrainedPrior(BLOCKS, cost, bins, method="rejection")
    assert not prior.counts_exactly
    assert prior.count() == pytest.approx(exact.count(), rel=0.1)
    assert prior.acceptance == pytest.approx([n / 4**5 for n in exact.count()], rel=0.1)
    for label, probs in exact.marginals().items():
        assert prior.marginals()[label] == pytest.approx(probs, abs=0.01)


def test_the_papers_bins():
    assert SPOS_BINS[0] == (290e6, 300e6)
    assert SPOS_BINS[-1] == (350e6, 360e6)
    assert len(SPOS_BINS) == 7


@pytest.mark.parametrize(
    "bins",
    [
        (1100, 1200),
        [1100, 1200],
        [(1100, 1200)],
        ((1100, 1200.0),),
        [[1100, 1200]],
        Constraint("flops", 1100, 1200),
        [Constraint("flops", 1100, 1200)],
        np.array([[1100, 1200]]).tolist(),
        [(np.int64(1100), np.float64(1200))],
    ],
)
def test_bins_in_every_form(bins):
    prior = ConstrainedPrior(BLOCKS, block_cost(), bins)
    assert prior.bins == (Constraint("flops", 1100, 1200),)
    assert 1100 <= prior.cost.price(prior.path(0)) <= 1200


def test_a_bin_may_be_open():
    cost = block_cost()
    assert ConstrainedPrior(BLOCKS, cost, Constraint("flops")).count() == (4**5,)
    low = cost.cheapest()[0]
    prior = ConstrainedPrior(BLOCKS, cost, [(-math.inf, low), Constraint("flops", low=low + 1)])
    assert sum(prior.count()) == 4**5


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([], r"^bins must be a list of \(low, high\), got \[\]\.$"),
        (1100, r"^bins must be a list of \(low, high\), got 1100\.$"),
        ("flops <= 1200", r"^bins must be a list of \(low, high\), got 'flops <= 1200'\.$"),
        ([(1100, 1200, 1300)], r"^bin \(1100, 1200, 1300\) is not an interval \(low, high\) of "),
        ([(1100, "1200")], r"^bin \(1100, '1200'\) is not an interval"),
        ([(1100, None)], r"^bin \(1100, None\) is not an interval"),
        ([(True, 1200)], r"^bin \(True, 1200\) is not an interval"),
        (
            [(1200, 1100)],
            r"^constraint on flops: the lower bound 1.2k exceeds the upper bound 1.1k",
        ),
        ([(1100, math.nan)], r"^constraint on flops: a bound is not a number\.$"),
        ((math.nan, 1200), r"^constraint on flops: a bound is not a number\.$"),
        (Constraint("params", 0, 1), r"^bin '0 <= params <= 1' is on another metric than the cost"),
    ],
)
def test_refuses_wrong_bins(bins, message):
    with pytest.raises(ConstraintError, match=message):
        ConstrainedPrior(BLOCKS, block_cost(), bins)


def test_an_empty_bin_names_the_nearest_costs():
    cost = block_cost()
    costs = np.unique(cost.price_many(BLOCKS.enumerate()))
    place = len(costs) // 2
    below, above = costs[place], costs[place + 1]
    ConstrainedPrior(BLOCKS, cost, [(below, above - 1)])
    message = (
        rf"^no path lies in the bin '[0-9.]+k? <= flops <= [0-9.]+k?': the nearest cost is {below} "
        rf"below and {above} above\. flops of this space lies between [0-9.]+k \(cheapest path\) "
        r"and [0-9.]+k \(dearest path\)\.$"
    )
    with pytest.raises(InfeasibleError, match=message):
        ConstrainedPrior(BLOCKS, cost, [(below, above), (below + 1, above - 1)])
    with pytest.raises(InfeasibleError, match=rf"the nearest cost is {costs[0]} above\. flops"):
        ConstrainedPrior(BLOCKS, cost, (0, 1))
    with pytest.raises(InfeasibleError, match=rf"the nearest cost is {costs[-1]} below\. flops"):
        ConstrainedPrior(BLOCKS, cost, (10_000, 20_000))


def test_a_narrow_gap_in_floats():
    cost = width_cost()
    costs = np.sort(cost.price_many(WIDTHS.enumerate()))
    place = int(np.argmax(np.diff(costs)))
    low, high = costs[place], costs[place + 1]
    middle = (low + high) / 2
    ConstrainedPrior(WIDTHS, cost, (low, middle))
    with pytest.raises(InfeasibleError, match="the nearest cost is") as problem:
        ConstrainedPrior(WIDTHS, cost, (middle, np.nextafter(high, 0)))
    words = str(problem.value).replace(" above", "").split("the nearest cost is ")[1].split()
    assert float(words[0]) == pytest.approx(low, rel=1e-5)
    assert float(words[3].rstrip(".")) == pytest.approx(high, rel=1e-5)


def test_refuses_a_table_of_another_space():
    with pytest.raises(CostError, match=r"^cost table flops was made for another search space\.$"):
        ConstrainedPrior(WIDTHS, block_cost(), (1100, 1200))


def test_refuses_an_unknown_method():
    with pytest.raises(
        ConstraintError, match=r"^method 'count' is unknown\. Methods: counting, rejection\.$"
    ):
        ConstrainedPrior(BLOCKS, block_cost(), (1100, 1200), method="count")


def test_a_table_that_cannot_be_counted(monkeypatch):
    monkeypatch.setattr(counting.plan, "MAX_STATES", 1)
    cost = chain_cost()
    with pytest.raises(
        CostError,
        match=r"too many to count paths\. Let uniform paths be tried instead: 'prior_method: "
        r"rejection' in a recipe, method=\"rejection\" in Python\.$",
    ):
        ConstrainedPrior(WIDTHS, cost, (3, 9))
    prior = ConstrainedPrior(WIDTHS, cost, (3, 9), method="rejection")
    assert all(3 <= cost.price(prior.path(step)) <= 9 for step in range(100))
    assert quantile_bins(cost, (0, 1)) == ((0, 5 + 5 + 5),)


def test_rejection_is_bounded(monkeypatch):
    monkeypatch.setattr(Region, "min_tries", 20_000)
    monkeypatch.setattr(Region, "tries_per_path", 1)
    space = PathSpace({f"unit_{i}": [0, 1, 2, 3] for i in range(20)})
    cost = CostTable("flops", space, 0, [Factor((x,), np.arange(4)) for x in space])
    assert ConstrainedPrior(space, cost, (0, 0)).count() == (1,)
    with pytest.raises(
        InfeasibleError,
        match=r"^none of 20000 uniform paths lies in the bin '0 <= flops <= 0'\. Widen it, or let "
        r"its paths be counted: 'prior_method: counting' in a recipe, method=\"counting\" in "
        r"Python\.$",
    ):
        ConstrainedPrior(space, cost, (0, 0), method="rejection")
    prior = ConstrainedPrior(space, cost, (0, 17), method="rejection")
    with pytest.raises(
        InfeasibleError,
        match=r"^only [0-9]+ of [0-9]+ paths drawn keep '0 <= flops <= 17' \(a share of [0-9.e-]+",
    ):
        prior.path(0)


def test_quantile_bins_by_hand():
    space = PathSpace({"a": [1, 2], "b": [1, 2, 3, 4]})
    table = np.array([[10, 20, 20, 40], [50, 60, 70, 80]])
    cost = CostTable("flops", space, 0, [Factor(("a", "b"), table)])
    assert quantile_bins(cost, (0, 0.5, 1)) == ((10, 40), (50, 80))
    assert quantile_bins(cost, [0.25, 0.75]) == ((20, 60),)
    assert quantile_bins(cost, (0, 0.125, 0.375, 1)) == ((10, 10), (20, 20), (40, 80))
    with pytest.raises(
        ConstraintError,
        match=r"^no cost of flops lies between the quantiles 0\.2 and 0\.3: both are 20\. Take",
    ):
        quantile_bins(cost, (0, 0.2, 0.3, 1))
    prior = ConstrainedPrior(space, cost, quantile_bins(cost, (0, 0.25, 0.5, 0.75, 1)))
    assert prior.count() == (3, 1, 2, 2)


def test_quantile_bins_of_real_costs_divide_the_paths():
    generator = np.random.default_rng(0)
    space = PathSpace({f"unit_{i}": [0, 1, 2, 3] for i in range(12)})
    cost = CostTable("latency_ms", space, 1, [Factor((x,), generator.random(4)) for x in space])
    bins = quantile_bins(cost, (0, 0.25, 0.5, 0.75, 1))
    lowest, highest = cost.cheapest()[0], cost.dearest()[0]
    assert [bins[0][0], bins[-1][1]] == pytest.approx([lowest, highest])
    counts = ConstrainedPrior(space, cost, bins).count()
    assert np.array(counts) / 4**12 == pytest.approx([0.25] * 4, abs=0.02)


@pytest.mark.parametrize(
    "quantiles",
    [(0,), (), (0, 0), (0.5, 0.2), (0, 1.5), (-0.1, 1), (0, math.nan), "01", 0.5, (0, "1")],
)
def test_refuses_wrong_quantiles(quantiles):
    with pytest.raises(ConstraintError, match=r"must be two or more numbers that rise from 0 to 1"):
        quantile_bins(block_cost(), quantiles)


def test_cost_histogram():
    cost = block_cost()
    costs = cost.price_many(BLOCKS.enumerate())
    for wanted in (
        7,
        [1000, 1100, 1150, 1300],
        list(costs[[0, -1]]) if costs[0] < costs[-1] else 3,
    ):
        edges, counts = cost_histogram(cost, wanted)
        expected, expected_edges = np.histogram(costs, wanted)
        assert edges.tolist() == expected_edges.tolist()
        assert counts.tolist() == expected.tolist()
    edges, counts = cost_histogram(width_cost(), 10)
    assert len(edges) == 11
    assert counts.sum() == pytest.approx(WIDTHS.size)
    for wrong in (0, [1, 1, 0], "ten"):
        with pytest.raises(ConstraintError, match="are not intervals"):
            cost_histogram(cost, wrong)
