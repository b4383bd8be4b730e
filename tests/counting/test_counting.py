import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.counting import (
    CountedRegion,
    PathCounter,
    Region,
    UniformRegion,
    cost_extent,
    describe_extent,
    make_region,
)
from nni_spos.counting import plan as planning
from nni_spos.errors import CostError, InfeasibleError
from nni_spos.path import PathSpace

INF = math.inf


def limit(low=-INF, high=INF, metric="flops"):
    return Constraint(metric, low, high)


def block_table(seed=0, num_units=6, entries=40):
    """Every label in its own factor."""
    space = PathSpace({f"unit_{i}": ["a", "b", "c"] for i in range(num_units)})
    generator = np.random.default_rng(seed)
    factors = [Factor((x,), generator.integers(0, entries, 3)) for x in space]
    return CostTable("flops", space, 100, factors)


def joint_table(entries=40, scale=1):
    """Block and width of a unit in one factor, blocks of all units first in the space."""
    choices = {f"block_{i}": ["a", "b"] for i in range(4)}
    space = PathSpace(choices | {f"width_{i}": [1, 2, 3] for i in range(4)})
    generator = np.random.default_rng(0)
    factors = [
        Factor((f"block_{i}", f"width_{i}"), scale * generator.integers(0, entries, (2, 3)))
        for i in range(4)
    ]
    return CostTable("flops", space, 7, factors)


def chain_table(num_labels=8, metric="flops"):
    """A factor over every two neighbours, as the widths of a plain chain of layers give."""
    space = PathSpace({f"width_{i}": [2, 3, 5] for i in range(num_labels)})
    product = np.outer([2, 3, 5], [2, 3, 5])
    factors = [Factor(pair, product) for pair in itertools.pairwise(space)]
    return CostTable(metric, space, 0, factors)


def in_floats(table):
    """The same table with costs that are multiples of nothing."""
    factors = [Factor(f.labels, np.sqrt(f.table + 2.0)) for f in table.factors]
    return CostTable(table.metric, table.space, table.constant, factors)


TABLES = {
    "block": block_table,
    "joint": joint_table,
    "chain": chain_table,
    "block floats": lambda: in_floats(block_table()),
    "joint floats": lambda: in_floats(joint_table()),
    "chain floats": lambda: in_floats(chain_table()),
}


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]()


@pytest.fixture
def rejecting(monkeypatch):
    """Draw by rejection from coarse cells also where all paths could be listed."""
    monkeypatch.setattr(CountedRegion, "LIST_BELOW", 0)


def all_costs(table):
    return table.price_many(table.space.enumerate())


def critical(degrees):
    """A value that chi-square exceeds about once in 10,000 times (Wilson and Hilferty)."""
    return degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3


def assert_uniform(drawn, space, feasible):
    """Draws must be feasible, and a chi-square test must not tell them from uniform ones."""
    numbers = np.ravel_multi_index(tuple(drawn.T), space.num_choices)
    counts = np.bincount(numbers, minlength=space.size)
    assert not counts[~feasible].any()
    expected = len(drawn) / feasible.sum()
    assert expected > 5
    statistic = ((counts[feasible] - expected) ** 2 / expected).sum()
    assert statistic < critical(feasible.sum() - 1)


def test_the_critical_value_is_that_of_tables():
    assert critical(11) == pytest.approx(37.37, rel=0.02)
    assert critical(6) == pytest.approx(27.86, rel=0.02)


@pytest.mark.parametrize("max_entries", [4_000_000, 3000])
@pytest.mark.parametrize("quantiles", [(0, 1), (0, 0.1), (0.4, 0.5), (0.95, 1)])
def test_draws_are_uniform_in_an_interval(table, rejecting, quantiles, max_entries):
    costs = all_costs(table)
    low, high = np.quantile(costs, quantiles, method="inverted_cdf").tolist()
    region = PathCounter([table], max_entries=max_entries).within(limit(low, high))
    drawn = region.draw(200_000, np.random.default_rng(0))
    assert drawn.shape == (200_000, len(table.space))
    assert drawn.dtype == np.int64
    assert_uniform(drawn, table.space, (low <= costs) & (costs <= high))
    assert 0 < region.acceptance <= 1


def test_listed_paths_are_drawn_uniformly():
    table = in_floats(block_table())
    costs = all_costs(table)
    high = float(np.quantile(costs, 0.1))
    region = PathCounter([table]).within(limit(high=high))
    feasible = costs <= high
    assert 10 < feasible.sum() == region.count() == len(region.enumerate())
    assert region.acceptance == 1
    assert_uniform(region.draw(200_000, np.random.default_rng(0)), table.space, feasible)


def test_whole_costs_reject_nothing():
    for scale in (1, 6272):
        counter = PathCounter([joint_table(scale=scale)])
        assert counter.exact
        assert counter.within(limit(high=7 + 60 * scale)).acceptance == 1
        assert len(counter.totals) < 160, "cells of the common divisor"
    assert not PathCounter([joint_table(entries=10**9)]).exact


def test_draws_depend_on_the_generator_only(table, rejecting):
    middle = float(np.median(all_costs(table)))
    region = PathCounter([table]).within(limit(high=middle))
    expected = region.draw(50, np.random.default_rng(1)).tolist()
    region.draw(7, np.random.default_rng(2))
    assert region.draw(50, np.random.default_rng(1)).tolist() == expected
    assert region.draw(50, np.random.default_rng(2)).tolist() != expected
    assert region.draw(0, np.random.default_rng(1)).shape == (0, len(table.space))


@pytest.mark.parametrize("name", ["block", "joint", "chain"])
def test_marginals_are_those_of_enumeration(name):
    table = TABLES[name]()
    paths, costs = table.space.enumerate(), all_costs(table)
    low, high = np.quantile(costs, (0.1, 0.3), method="inverted_cdf").tolist()
    marginals = PathCounter([table]).within(limit(low, high)).marginals()
    feasible = paths[(low <= costs) & (costs <= high)]
    for column, (label, choices) in zip(feasible.T, table.space.items(), strict=True):
        assert list(marginals[label]) == list(choices)
        for place, choice in enumerate(choices):
            assert marginals[label][choice] == pytest.approx((column == place).mean(), abs=1e-12)


def test_marginals_by_draws():
    table = in_floats(block_table())
    costs = all_costs(table)
    feasible = table.space.enumerate()[costs <= np.median(costs)]
    marginals = PathCounter([table]).within(limit(high=np.median(costs))).marginals()
    for column, label in zip(feasible.T, table.space, strict=True):
        shares = np.bincount(column, minlength=3) / len(feasible)
        # Five standard deviations of 100,000 draws.
        assert list(marginals[label].values()) == pytest.approx(shares, abs=5 * 0.5 / 316)


def test_marginals_of_nothing():
    for table in (block_table(), in_floats(block_table())):
        region = PathCounter([table]).within(limit(high=1))
        assert region.is_empty()
        assert region.count() == 0
        assert region.acceptance == 1
        assert region.draw(0, np.random.default_rng(0)).shape == (0, 6)
        assert region.accepted(10, np.random.default_rng(0)).shape == (0, 6)
        for use in (
            region.marginals,
            lambda region=region: region.draw(1, np.random.default_rng()),
        ):
            with pytest.raises(InfeasibleError, match=r"^no path keeps 'flops <= 1'\. Widen the"):
                use()


def test_a_label_without_cost_is_uniform():
    space = PathSpace({"free": ["a", "b"], "unit": [1, 2, 3], "only": [0]})
    table = CostTable("flops", space, 5, [Factor(("unit",), np.array([0, 1, 2]))])
    region = PathCounter([table]).within(limit(5, 6))
    assert region.count() == 4
    assert region.marginals() == {
        "free": {"a": 0.5, "b": 0.5},
        "unit": {1: 0.5, 2: 0.5, 3: 0.0},
        "only": {0: 1.0},
    }
    assert_uniform(region.draw(4000, np.random.default_rng(0)), space, all_costs(table) <= 6)


def test_extent(table):
    costs = all_costs(table)
    assert PathCounter([table]).extent() == cost_extent(table) == (costs.min(), costs.max())


def test_an_extent_is_told_in_the_units_of_the_metric():
    text = describe_extent("bitops", 2**29, 3 * 2**30)
    assert "between 512Mi (cheapest path) and 3Gi (dearest path)" in text
    assert "between 536.871M (cheapest path)" in describe_extent("flops", 2**29, 3 * 2**30)


def test_a_table_that_is_constant():
    space = PathSpace({"a": [1, 2], "b": [1, 2]})
    counter = PathCounter([CostTable("flops", space, 5)])
    assert (counter.count(), counter.count(5, 5), counter.count(high=4.9)) == (4, 4, 0)
    assert counter.extent() == (5, 5)
    assert counter.nearest(6, 7) == (5, None)


WHOLE = st.integers(-50, 50) | st.integers(-(10**12), 10**12) | st.sampled_from([0, 6272, 62720])
REAL = st.floats(-1e6, 1e6)


@st.composite
def tables_of_a_space(draw, max_tables=2):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    space = PathSpace({f"unit_{i}": list(range(n)) for i, n in enumerate(sizes)})
    tables = []
    for number in range(draw(st.integers(1, max_tables))):
        entries = draw(st.sampled_from([WHOLE, REAL]))
        factors = []
        for labels in draw(st.lists(st.permutations(list(space)), max_size=5)):
            labels = tuple(labels[: draw(st.integers(0, 3))])
            shape = [len(space[label]) for label in labels]
            size = math.prod(shape)
            numbers = draw(st.lists(entries, min_size=size, max_size=size))
            factors.append(Factor(labels, np.array(numbers).reshape(shape)))
        tables.append(CostTable(f"cost_{number}", space, draw(entries), factors))
    return tables


@st.composite
def counted(draw):
    """Tables, limits between costs that occur, options, and the paths that may be drawn."""
    tables = draw(tables_of_a_space())
    space = tables[0].space
    options = [
        draw(st.lists(st.sampled_from(range(n)), min_size=1, unique=True))
        for n in space.num_choices
    ]
    paths = np.array(list(itertools.product(*options)))
    feasible = np.ones(len(paths), dtype=bool)
    limits = []
    for table in tables:
        costs = np.unique(table.price_many(paths)).tolist()
        low, high = sorted(draw(st.lists(st.sampled_from(costs), min_size=2, max_size=2)))
        low, high = draw(st.sampled_from([(low, high), (-INF, high), (low, INF)]))
        limits.append(Constraint(table.metric, low, high))
        cost = table.price_many(paths)
        feasible &= (low <= cost) & (cost <= high)
    return tables, limits, options, {tuple(path) for path in paths[feasible].tolist()}


@given(counted(), st.sampled_from([20_000, 4_000_000]))
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_counting_equals_brute_force(case, max_entries):
    tables, limits, options, feasible = case
    try:
        region = PathCounter(tables, options, max_entries).within(*limits)
    except CostError:  # a small table for several metrics
        assume(False)
    assert {tuple(path) for path in region.enumerate().tolist()} == feasible
    assert region.is_empty() == (not feasible)
    if region.counts_exactly:
        assert region.count() == len(feasible)
    elif feasible:
        assert region.count() == pytest.approx(len(feasible), rel=0.3, abs=1)
    generator = np.random.default_rng(0)
    if feasible:
        drawn = {tuple(path) for path in region.draw(2000, generator).tolist()}
        assert drawn <= feasible
        assert len(feasible) > 200 or drawn == feasible
    else:
        with pytest.raises(InfeasibleError):
            region.draw(1, generator)


@given(tables_of_a_space(max_tables=1), st.randoms())
@settings(max_examples=100, deadline=None)
def test_whole_costs_are_counted_exactly(tables, random):
    (table,) = tables
    assume(all(f.table.dtype.kind == "i" for f in table.factors))
    counter = PathCounter([table])
    costs = np.sort(all_costs(table)).tolist()
    assert counter.extent() == (costs[0], costs[-1])
    cuts = sorted(random.sample(costs, min(3, len(costs))))
    parts = [counter.count(high=cuts[0] - 0.5)]
    parts += [counter.count(a - 0.5, b - 0.5) for a, b in itertools.pairwise(cuts)]
    parts.append(counter.count(low=cuts[-1] - 0.5))
    assert all(type(part) is int for part in parts)
    if counter.within(limit(metric=table.metric)).counts_exactly:
        assert sum(parts) == len(costs)
        assert parts[0] == sum(cost < cuts[0] for cost in costs)


@given(tables_of_a_space(max_tables=1), st.floats(-2e6, 2e6), st.floats(0, 1000))
@settings(max_examples=100, deadline=None)
def test_nearest_costs(tables, low, width):
    (table,) = tables
    high = low + width
    costs = np.unique(all_costs(table))
    counter = PathCounter([table])
    rounding = 0 if counter.exact else (costs[-1] - costs[0]) * 1e-6 + 1e-300
    assume(not ((low - rounding <= costs) & (costs <= high + rounding)).any())
    below, above = counter.nearest(low, high)
    for found, beyond in ((below, costs[costs < low][-1:]), (above, costs[costs > high][:1])):
        if len(beyond):
            assert found == pytest.approx(beyond[0], abs=rounding, rel=1e-12)
        else:
            assert found is None


def test_a_space_of_32_to_the_40_paths():
    space = PathSpace({f"unit_{i}": list(range(32)) for i in range(40)})
    factors = [Factor((label,), np.arange(32)) for label in space]
    counter = PathCounter([CostTable("flops", space, 0, factors)])
    assert counter.count() == 32**40
    assert counter.count(0, 2) == 1 + 40 + (40 + 40 * 39 // 2)
    assert counter.count(40 * 31 - 1) == 41
    parts = [counter.count(low, low + 30.9) for low in range(0, 1271, 31)]
    assert sum(parts) == 32**40
    drawn = counter.within(limit(high=1)).draw(41_000, np.random.default_rng(0))
    assert (drawn.sum(axis=1) <= 1).all()
    counts = np.bincount(np.where(drawn.any(axis=1), drawn.argmax(axis=1), 40))
    assert ((counts - 1000) ** 2 / 1000).sum() < critical(40)


def test_a_chain_of_many_labels_is_counted():
    table = chain_table(num_labels=40)  # joined, its table would have 3^40 entries
    counter = PathCounter([table])
    assert counter.count() == 3**40
    assert counter.extent() == (39 * 4, 39 * 25)
    assert counter.count(high=39 * 4) == 1
    assert counter.count(high=39 * 4 + 2) == 3, "the first or the last width is 3"
    region = counter.within(limit(high=200))
    drawn = region.draw(1000, np.random.default_rng(0))
    assert (table.price_many(drawn) <= 200).all()


def test_factors_that_hang_together_too_much(monkeypatch):
    space = PathSpace({f"unit_{i}": list(range(4)) for i in range(8)})
    pairs = itertools.combinations(space, 2)
    table = CostTable("flops", space, 0, [Factor(x, np.arange(16).reshape(4, 4)) for x in pairs])
    monkeypatch.setattr(planning, "MAX_STATES", 4**7)
    assert PathCounter([table]).count() == 4**8
    monkeypatch.setattr(planning, "MAX_STATES", 4**7 - 1)
    with pytest.raises(
        CostError,
        match=r"^the costs of flops depend on more than 16383 .*too many to count paths\.$",
    ):
        PathCounter([table])


def test_tables_that_would_be_too_coarse():
    table = block_table(entries=10**9)
    PathCounter([table], max_entries=1000)
    with pytest.raises(CostError, match=r"^counting paths by flops needs more than 100 entries\.$"):
        PathCounter([table], max_entries=100)


def test_tables_of_different_spaces():
    tables = [block_table(), CostTable("params", PathSpace({"a": [1]}), 0)]
    with pytest.raises(CostError, match=r"^cost tables flops and params belong to different"):
        PathCounter(tables)


def test_a_space_too_large_to_count():
    space = PathSpace({f"unit_{i}": list(range(32)) for i in range(201)})
    with pytest.raises(CostError, match=r"more than 2\^1000 paths, too many to count\.$"):
        PathCounter([CostTable("flops", space, 0)])


def test_distribution(table):
    counter = PathCounter([table])
    if not counter.exact:
        with pytest.raises(CostError, match="lie too close together to list them"):
            counter.distribution()
        return
    costs, counts = counter.distribution()
    expected = np.unique(all_costs(table), return_counts=True)
    assert costs.tolist() == expected[0].tolist()
    assert counts.tolist() == expected[1].tolist()


def other_table(table, metric):
    generator = np.random.default_rng(len(metric))
    factors = [Factor(f.labels, generator.integers(0, 30, f.table.shape)) for f in table.factors]
    return CostTable(metric, table.space, 0, factors)


def test_the_limit_that_fewest_paths_keep_guides_the_draws():
    tables = [in_floats(chain_table(num_labels=8, metric=metric)) for metric in ("a", "b", "c")]
    costs = all_costs(tables[0])
    highs = [costs.max(), np.quantile(costs, 0.5), np.quantile(costs, 0.1)]
    limits = [Constraint(t.metric, high=float(h)) for t, h in zip(tables, highs, strict=True)]
    region = make_region(tables[0].space, tables, limits, max_entries=20_000)
    assert [table.metric for table in region.tables] == ["c", "b", "a"]
    assert region.contains(region.draw(100, np.random.default_rng(0))).all()


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("max_entries", [4_000_000, 60_000, 3000])
def test_several_limits_at_once(table, rejecting, number, max_entries):
    tables = [
        table,
        *(other_table(table, metric) for metric in ("params", "latency")[: number - 1]),
    ]
    costs = [all_costs(t) for t in tables]
    limits = [
        Constraint(t.metric, *np.quantile(c, q, method="inverted_cdf").tolist())
        for t, c, q in zip(tables, costs, [(0.2, 0.5), (0, 0.5), (0.4, 1)], strict=False)
    ]
    feasible = np.all(
        [(x.low <= c) & (c <= x.high) for x, c in zip(limits, costs, strict=True)], axis=0
    )
    assert 10 < feasible.sum() < len(feasible) / 4
    region = make_region(table.space, tables, limits, max_entries=max_entries)
    assert isinstance(region, CountedRegion)
    assert 0.01 < region.acceptance <= 1
    drawn = region.draw(200_000, np.random.default_rng(0))
    assert_uniform(drawn, table.space, feasible)
    if region.counts_exactly:
        assert region.count() == feasible.sum()
    else:
        assert region.count() == pytest.approx(feasible.sum(), rel=0.1)


def test_limits_that_exclude_each_other():
    table = block_table(num_units=12)
    twin = CostTable("params", table.space, 0, table.factors)
    region = make_region(table.space, [table, twin], [limit(high=150), limit(60, metric="params")])
    assert region.is_empty()
    assert region.count() == 0


def test_without_a_table_every_path_is_drawn():
    space = block_table().space
    region = make_region(space, [], [])
    assert_uniform(region.draw(50_000, np.random.default_rng(0)), space, np.ones(space.size, bool))
    assert region.count() == space.size


def test_tables_that_cannot_be_counted_are_left_to_rejection(monkeypatch):
    monkeypatch.setattr(planning, "MAX_STATES", 1)
    table = chain_table(num_labels=6)
    costs = all_costs(table)
    region = make_region(table.space, [table], [limit(high=60)])
    assert isinstance(region, UniformRegion)
    assert not region.counts_exactly
    drawn = region.draw(50_000, np.random.default_rng(0))
    assert_uniform(drawn, table.space, costs <= 60)
    assert region.acceptance == pytest.approx((costs <= 60).mean(), rel=0.1)
    assert region.count() == pytest.approx((costs <= 60).sum(), rel=0.1)


def test_rejection_gives_up(monkeypatch):
    monkeypatch.setattr(Region, "min_tries", 1000)
    monkeypatch.setattr(Region, "tries_per_path", 10)
    table = block_table(num_units=12)
    low, high = PathCounter([table]).extent()
    rare = UniformRegion(table.space, [table], [limit(high=low)])
    with pytest.raises(
        InfeasibleError, match=r"^only 0 of [0-9]+ paths drawn keep 'flops <= [0-9]+' \(a share of"
    ):
        rare.draw(1, np.random.default_rng(0))
    assert rare.is_empty()
    assert not UniformRegion(table.space, [table], [limit(high=high)]).is_empty()
    assert PathCounter([table]).count(high=low) >= 1


def test_options_of_a_region():
    table = joint_table()
    options = [[1], [0, 1], [0], [1], [2, 0], [1], [1, 2], [0, 1, 2]]
    paths = np.array(list(itertools.product(*options)))
    feasible = {tuple(p) for p in paths[table.price_many(paths) <= 80].tolist()}
    assert 3 < len(feasible) < len(paths)
    for region in (
        PathCounter([table], options).within(limit(high=80)),
        UniformRegion(table.space, [table], [limit(high=80)], options),
    ):
        drawn = region.draw(5000, np.random.default_rng(0)).tolist()
        assert {tuple(path) for path in drawn} == feasible


def test_the_papers_space():
    from nni_spos.profilers import build_costs
    from nni_spos.spaces import ShuffleNetV2Space

    costs = build_costs(ShuffleNetV2Space(affine=True), (3, 224, 224))
    counter = PathCounter([costs["flops"]])
    assert counter.exact
    assert counter.extent() == (270_359_360, 398_609_216)
    # Costs are whole, so intervals that end below the next one's start leave nothing out.
    bins = [(low * 10**7, (low + 1) * 10**7 - 1) for low in range(27, 40)]
    counts = np.array([counter.count(*interval) for interval in bins])
    assert sum(counts.tolist()) == 4**20 == counter.count()
    space = counter.space
    drawn = np.random.default_rng(0).integers(0, 4, (100_000, len(space)))
    edges = [low for low, _ in bins] + [bins[-1][1] + 1]
    found, _ = np.histogram(costs["flops"].price_many(drawn), edges)
    probs = counts / 4**20
    deviations = np.sqrt(100_000 * probs * (1 - probs))
    assert (np.abs(found - 100_000 * probs) <= 4 * deviations + 1).all()
    assert round(counter.count(high=330e6) / 4**20, 3) == 0.589
    values, weights = counter.distribution()
    # Counts below 2^53 are exact as floats; whole numbers as Python's are.
    total = sum(cost * int(n) for cost, n in zip(values.tolist(), weights, strict=True))
    assert total == 327_174_272 * 4**20
