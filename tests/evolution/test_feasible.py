import itertools

import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.counting import plan
from nni_spos.errors import ConstraintError, InfeasibleError
from nni_spos.evolution import FeasibleSampler
from nni_spos.path import PathSpace

KEYS = list(itertools.product(range(3), repeat=6))  # the fixture space; a key costs its sum


def limits(*texts):
    return [Constraint.parse(text) for text in texts]


@pytest.mark.parametrize(
    "texts",
    [(), ("flops <= 3",), ("flops >= 11",), ("6 <= flops <= 6",), ("flops <= 4", "flops >= 4")],
)
@pytest.mark.parametrize("enumerate_below", [100_000, 0])
def test_streams_exactly_the_feasible_paths(space, costs, monkeypatch, texts, enumerate_below):
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", enumerate_below)
    monkeypatch.setattr(FeasibleSampler, "MAX_DRAWS", 50_000)
    allowed = limits(*texts)
    sampler = FeasibleSampler(space, costs, allowed)
    feasible = {key for key in KEYS if all(limit.allows(sum(key)) for limit in allowed)}
    drawn = list(sampler.stream(np.random.default_rng(0)))
    assert set(drawn) == feasible
    if enumerate_below:
        assert len(drawn) == len(feasible)
    assert {key for key in KEYS if sampler.is_feasible(key)} == feasible
    assert sampler.feasible(np.array(KEYS)).tolist() == [key in feasible for key in KEYS]


@pytest.mark.parametrize("enumerate_below", [100_000, 0])
@pytest.mark.slow
def test_feasible_paths_are_alike(space, costs, monkeypatch, enumerate_below):
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", enumerate_below)
    sampler = FeasibleSampler(space, costs, limits("flops <= 1"))  # 1 + 6 paths
    firsts = [next(sampler.stream(np.random.default_rng(seed))) for seed in range(1400)]
    counts = np.unique(np.array(firsts), axis=0, return_counts=True)[1]
    assert len(counts) == 7
    # Chi-square with 6 degrees of freedom: 27.86 is exceeded once in 10,000 times.
    assert ((counts - 200) ** 2 / 200).sum() < 27.86


def test_the_stream_depends_on_the_generator_only(space, costs):
    samplers = [FeasibleSampler(space, costs, limits("flops <= 5")) for _ in range(2)]
    streams = [list(s.stream(np.random.default_rng(1))) for s in (*samplers, samplers[0])]
    assert streams[0] == streams[1] == streams[2]
    assert streams[0] != list(samplers[0].stream(np.random.default_rng(2)))


def test_a_large_space_is_sampled_with_bounded_work(make_costs, monkeypatch):
    space = PathSpace({str(i): [0, 1, 2, 3] for i in range(40)})
    monkeypatch.setattr(FeasibleSampler, "MAX_DRAWS", 10_000)
    sampler = FeasibleSampler(space, make_costs(space), limits("50 <= flops <= 55"))
    drawn = list(sampler.stream(np.random.default_rng(0)))
    assert 0 < len(drawn) < 10_000
    assert all(50 <= sum(key) <= 55 for key in drawn)
    assert all(type(place) is int for place in drawn[0])


@pytest.mark.parametrize(
    ("refused", "accepted"),
    [("flops >= 13", "flops >= 12"), ("13 <= flops <= 14", "12 <= flops <= 14")],
)
def test_above_the_dearest_path(space, costs, refused, accepted):
    sampler = FeasibleSampler(space, costs, limits(accepted))
    assert list(sampler.stream(np.random.default_rng(0))) == [(2,) * 6]
    with pytest.raises(
        InfeasibleError,
        match=rf"^no path meets '{refused}': flops of this space lies between 0 "
        r"\(cheapest path\) and 12 \(dearest path\)\.$",
    ):
        FeasibleSampler(space, costs, limits(refused))


def test_below_the_cheapest_path():
    space = PathSpace({"a": [1, 2]})
    table = CostTable("flops", space, 300e6, [Factor(("a",), np.array([0, 60_000_000]))])
    with pytest.raises(InfeasibleError, match=r"between 300M \(cheapest path\) and 360M"):
        FeasibleSampler(space, {"flops": table}, limits("flops <= 299M"))
    FeasibleSampler(space, {"flops": table}, limits("flops <= 300M"))


def test_a_gap_between_costs():
    space = PathSpace({"a": [1, 2]})
    table = CostTable("flops", space, 0, [Factor(("a",), np.array([10, 20]))])
    FeasibleSampler(space, {"flops": table}, limits("11 <= flops <= 20"))
    with pytest.raises(
        InfeasibleError,
        match=r"^none of the space's 2 paths meets '11 <= flops <= 19'. flops of this space lies "
        r"between 10 \(cheapest path\) and 20 \(dearest path\); the nearest cost is 10 below and "
        r"20 above\. Widen the limits\.$",
    ):
        FeasibleSampler(space, {"flops": table}, limits("11 <= flops <= 19"))


@pytest.mark.parametrize("enumerate_below", [100_000, 0])
def test_limits_that_exclude_each_other(space, costs, make_costs, monkeypatch, enumerate_below):
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", enumerate_below)
    monkeypatch.setattr(FeasibleSampler, "MAX_DRAWS", 20_000)
    both = costs | make_costs(space, "params")
    FeasibleSampler(space, both, limits("flops <= 5", "params >= 5"))
    with pytest.raises(
        InfeasibleError,
        match=r"^none of .*paths.* meets 'flops <= 4' and 'params >= 5'\. flops of this space lies "
        r"between 0 .* and 12 .*; params of this space lies between 0 .* and 12 .*\. Widen",
    ):
        FeasibleSampler(space, both, limits("flops <= 4", "params >= 5"))


def test_unknown_metric(space, costs):
    with pytest.raises(
        ConstraintError,
        match=r"^constraint 'flop <= 4': unknown metric 'flop'; did you mean 'flops'\? "
        r"Metrics: flops\.$",
    ):
        FeasibleSampler(space, costs, limits("flop <= 4"))


LARGE = PathSpace({str(i): [0, 1, 2, 3] for i in range(20)})


@pytest.mark.parametrize("text", ["flops <= 6", "flops >= 54", "30 <= flops <= 30"])
def test_limits_that_few_paths_meet(make_costs, text):
    (limit,) = limits(text)
    sampler = FeasibleSampler(LARGE, make_costs(LARGE), [limit])
    assert sampler.acceptance == 1
    drawn = list(itertools.islice(sampler.stream(np.random.default_rng(0)), 1000))
    assert len(drawn) == 1000
    assert all(limit.allows(sum(key)) for key in drawn)


def test_few_feasible_paths_of_a_large_space_are_listed(make_costs):
    sampler = FeasibleSampler(LARGE, make_costs(LARGE), limits("flops <= 2"))
    drawn = list(sampler.stream(np.random.default_rng(0)))
    assert len(drawn) == len(set(drawn)) == 1 + 20 + (20 + 20 * 19 // 2)
    assert all(sum(key) <= 2 for key in drawn)
    assert sampler.share == pytest.approx(len(drawn) / 4**20)


def test_share(space, costs, monkeypatch):
    assert FeasibleSampler(space, costs).share == 1
    assert FeasibleSampler(space, costs, limits("flops <= 1")).share == 7 / 3**6
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", 0)
    assert FeasibleSampler(space, costs).share == 1
    assert FeasibleSampler(space, costs, limits("flops <= 1")).share == 7 / 3**6


def test_several_limits_on_a_large_space(make_costs):
    generator = np.random.default_rng(0)
    factors = [Factor((label,), generator.random(4)) for label in LARGE]
    costs = make_costs(LARGE) | {"latency_ms": CostTable("latency_ms", LARGE, 0, factors)}
    allowed = limits("20 <= flops <= 24", "latency_ms <= 9", "flops <= 23")
    sampler = FeasibleSampler(LARGE, costs, allowed)
    assert 0.2 < sampler.acceptance < 1
    drawn = list(itertools.islice(sampler.stream(np.random.default_rng(0)), 1000))
    assert {sum(key) for key in drawn} == {20, 21, 22, 23}
    assert (costs["latency_ms"].price_many(np.array(drawn)) <= 9).all()
    uniform = generator.integers(0, 4, (200_000, 20))
    assert sampler.share == pytest.approx(sampler.feasible(uniform).mean(), rel=0.1)


def test_a_bin_between_costs_of_a_large_space(make_costs):
    space = PathSpace({str(i): [0, 1, 2, 3] for i in range(20)})
    table = CostTable("flops", space, 5, [Factor((x,), 10 * np.arange(4)) for x in space])
    FeasibleSampler(space, {"flops": table}, limits("310 <= flops <= 315"))
    with pytest.raises(
        InfeasibleError,
        match=r"^none of the space's 1099511627776 paths meets '306 <= flops <= 314'.*; the "
        r"nearest cost is 305 below and 315 above\. Widen the limits\.$",
    ):
        FeasibleSampler(space, {"flops": table}, limits("306 <= flops <= 314"))


def test_limits_on_one_metric_that_exclude_each_other(space, costs):
    with pytest.raises(
        InfeasibleError, match=r"^none of the space's 729 paths meets 'flops <= 4' and 'flops >= 5'"
    ):
        FeasibleSampler(space, costs, limits("flops <= 4", "flops >= 5"))


@pytest.mark.parametrize("enumerate_below", [100_000, 0])
def test_factors_that_cannot_be_counted(monkeypatch, enumerate_below):
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", enumerate_below)
    monkeypatch.setattr(FeasibleSampler, "MAX_DRAWS", 50_000)
    monkeypatch.setattr(plan, "MAX_STATES", 1)
    space = PathSpace({"a": [0, 1, 2], "b": [0, 1, 2]})
    table = CostTable("flops", space, 0, [Factor(("a", "b"), np.arange(9).reshape(3, 3))])
    sampler = FeasibleSampler(space, {"flops": table}, limits("flops <= 4"))
    drawn = set(sampler.stream(np.random.default_rng(0)))
    assert drawn == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    assert sampler.share == pytest.approx(5 / 9, abs=0.02)
    with pytest.raises(InfeasibleError, match=r"paths meets 'flops >= 9'\. Widen the limits\.$"):
        FeasibleSampler(space, {"flops": table}, limits("flops >= 9"))


@pytest.mark.parametrize("few", [4096, 0])
def test_paths_within_options(space, costs, monkeypatch, few):
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", 0)
    monkeypatch.setattr(FeasibleSampler, "_LIST_WITHIN", few)
    sampler = FeasibleSampler(space, costs, limits("5 <= flops <= 6"))
    options = [[0], [0, 1, 2], [2], [1, 0], [0, 2], [1]]
    drawn = list(sampler.within(options, np.random.default_rng(0)))
    feasible = {key for key in itertools.product(*options) if 5 <= sum(key) <= 6}
    assert set(drawn) == feasible
    if few:
        assert len(drawn) == len(feasible)
    assert not list(sampler.within([[0]] * 6, np.random.default_rng(0)))
