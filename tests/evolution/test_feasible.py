import itertools

import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
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
        r"between 10 \(cheapest path\) and 20 \(dearest path\). Widen the limits.$",
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
