import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.evolution import Candidate, State
from nni_spos.evolution.contenders import Contenders


def make(points):
    return [
        Candidate({}, number, 0, {"flops": cost}, State.DONE, {"top1": top1})
        for number, (top1, cost) in enumerate(points)
    ]


def numbers(candidates):
    return [candidate.number for candidate in candidates]


def dominates(one, other):
    better = one.metrics["top1"] >= other.metrics["top1"]
    cheaper = one.costs["flops"] <= other.costs["flops"]
    return better and cheaper and (one.metrics, one.costs) != (other.metrics, other.costs)


def fronts(candidates, count):
    """The fronts that are needed for `count` survivors, by the definition."""
    found, left = [], list(candidates)
    while left and sum(map(len, found)) < count:
        front = [c for c in left if not any(dominates(other, c) for other in left)]
        found.append(numbers(front))
        left = [c for c in left if c.number not in found[-1]]
    return found


def test_contenders_by_hand():
    # A chain: each dominates the following ones.
    contenders = Contenders("top1", ["flops"], num_survivors=2)
    chain = make([(70, 10), (69, 11), (68, 12), (67, 13)])
    contenders.add(chain[2:])
    assert numbers(contenders.candidates) == [2, 3]
    contenders.add(chain[:1])
    assert numbers(contenders.candidates) == [0, 2]
    contenders.add(chain[1:2])
    assert numbers(contenders.candidates) == [0, 1]
    np.testing.assert_array_equal(contenders.values, [[-70, 10], [-69, 11]])


def test_equal_candidates_do_not_dominate_each_other():
    contenders = Contenders("top1", ["flops"], num_survivors=1)
    contenders.add(make([(70, 10)] * 3))
    assert numbers(contenders.candidates) == [0, 1, 2]


POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25)


@given(points=POINTS, count=st.integers(1, 6), size=st.integers(1, 7), data=st.data())
def test_the_fronts_that_survive_are_those_of_all_candidates(points, count, size, data):
    candidates = make(points)
    told = data.draw(st.permutations(candidates))
    contenders = Contenders("top1", ["flops"], count)
    for start in range(0, len(told), size):
        contenders.add(told[start : start + size])
        so_far = sorted(told[: start + size], key=lambda c: c.number)
        assert fronts(contenders.candidates, count) == fronts(so_far, count)
        behind = {c.number for c in so_far if sum(dominates(other, c) for other in so_far) >= count}
        assert numbers(contenders.candidates) == [
            c.number for c in so_far if c.number not in behind
        ]


@pytest.mark.parametrize("num_candidates", [500, 4000])
def test_few_are_left_of_many(num_candidates):
    # Independent objectives: about 10 (1 + ln(n / 10)) are behind fewer than 10 others.
    points = np.random.default_rng(0).random((num_candidates, 2))
    contenders = Contenders("top1", ["flops"], num_survivors=10)
    contenders.add(make(points.tolist()))
    expected = 10 * (1 + np.log(num_candidates / 10))
    assert 0.6 * expected < len(contenders.candidates) < 1.5 * expected
