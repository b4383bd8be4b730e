import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nni_spos.constraint import Constraint
from nni_spos.evolution import Candidate, State, choose_cost_objectives, pareto_front


def make(*points):
    """Candidates with a top-1 and two costs, in the order of proposal."""
    return [
        Candidate(
            {"unit": number},
            number,
            0,
            {"flops": flops, "params": params},
            State.DONE,
            {"top1": top1},
        )
        for number, (top1, flops, params) in enumerate(points)
    ]


def numbers(candidates):
    return [candidate.number for candidate in candidates]


def test_a_front_by_hand():
    candidates = make((70, 30, 0), (60, 20, 0), (60, 25, 0), (50, 20, 0), (71, 40, 0), (40, 10, 0))
    assert numbers(pareto_front(candidates, "top1", ["flops"])) == [5, 1, 0, 4]


def test_every_cost_counts():
    candidates = make((70, 30, 5), (69, 30, 4), (68, 30, 6))
    assert numbers(pareto_front(candidates, "top1", ["flops"])) == [0]
    assert numbers(pareto_front(candidates, "top1", ["flops", "params"])) == [1, 0]
    assert numbers(pareto_front(candidates, "top1", ["params"])) == [1, 0]


def test_equal_candidates_stay_together():
    candidates = make((70, 30, 0), (70, 30, 0), (70, 31, 0), (69, 30, 0))
    assert numbers(pareto_front(candidates, "top1", ["flops"])) == [0, 1]


def test_only_finished_candidates():
    candidates = make((70, 30, 0), (99, 1, 0), (98, 2, 0))
    candidates[1].state, candidates[2].state = State.FAILED, State.PENDING
    candidates[1].metrics = candidates[2].metrics = {}
    assert numbers(pareto_front(candidates, "top1", ["flops"])) == [0]
    assert pareto_front([], "top1", ["flops"]) == []


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12))
def test_nothing_on_the_front_is_dominated(points):
    def dominates(one, other):
        one, other = (-one[0], *one[1:]), (-other[0], *other[1:])
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    candidates = make(*points)
    front = numbers(pareto_front(candidates, "top1", ["flops", "params"]))
    dominated = {
        j
        for i, j in itertools.permutations(range(len(points)), 2)
        if dominates(points[i], points[j])
    }
    assert set(front) == set(range(len(points))) - dominated
    assert front == sorted(front, key=lambda i: (*points[i][1:], i))


@pytest.mark.parametrize(
    ("named", "limits", "expected"),
    [
        (["params", "flops"], ["flops <= 5"], ("params", "flops")),
        ([], ["params <= 5", "flops <= 5"], ("params",)),
        ([], [], ("flops",)),
    ],
)
def test_which_costs_are_minimised(named, limits, expected):
    limits = [Constraint.parse(text) for text in limits]
    assert choose_cost_objectives(named, limits) == expected
