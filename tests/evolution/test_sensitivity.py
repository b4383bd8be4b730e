"""What each choice alone changes, and the paths that this promises."""

import math

import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import InfeasibleError
from nni_spos.evolution import sensitivity
from nni_spos.evolution.sensitivity import effects_of, promising_paths, single_changes
from nni_spos.path import PathSpace

SPACE = PathSpace({f"unit_{i}": [8, 4, 2, 1] for i in range(6)})
BASE = dict.fromkeys(SPACE.labels, 8)
COSTS = {
    "flops": CostTable(
        "flops", SPACE, 0, [Factor((label,), np.array([8, 4, 2, 1])) for label in SPACE.labels]
    )
}


@pytest.fixture(autouse=True)
def few_generations(monkeypatch):
    """The space is small."""
    monkeypatch.setattr(sensitivity, "GENERATIONS", 15)


def loss(path):
    """The later a unit, the more it needs its channels."""
    return sum((i + 1) * (8 - path[label]) for i, label in enumerate(SPACE.labels))


def test_effects_are_those_of_each_choice():
    tried = single_changes(SPACE, BASE)
    assert len(tried) == 1 + 6 * 3
    effects = effects_of(SPACE, BASE, [-loss(path) for path in tried])
    assert effects["unit_2"] == {8: 0, 4: -12, 2: -18, 1: -21}


def test_a_path_that_cannot_be_scored_is_as_bad_as_the_worst():
    results = [-loss(path) for path in single_changes(SPACE, BASE)]
    results[1] = math.nan
    effects = effects_of(SPACE, BASE, results)
    assert effects["unit_0"][4] == min(min(x.values()) for x in effects.values())


@pytest.mark.parametrize("limit", [12, 24, 36])
def test_promising_paths_keep_the_limit_and_lose_least(limit):
    effects = effects_of(SPACE, BASE, [-loss(path) for path in single_changes(SPACE, BASE)])
    constraints = [Constraint.parse(f"flops <= {limit}")]
    found = promising_paths(SPACE, COSTS, constraints, effects, 3)
    every = SPACE.decode(SPACE.enumerate())
    allowed = [path for path in every if COSTS["flops"].price(path) <= limit]
    best = min(map(loss, allowed))
    assert loss(found[0]) == best
    assert [loss(x) for x in found] == sorted(loss(x) for x in found)
    assert all(COSTS["flops"].price(x) <= limit for x in found)


def test_the_same_seed_gives_the_same_paths(monkeypatch):
    monkeypatch.setattr(sensitivity, "GENERATIONS", 3)
    effects = effects_of(SPACE, BASE, [-loss(path) for path in single_changes(SPACE, BASE)])
    limits = [Constraint.parse("flops <= 36")]
    one, other = (promising_paths(SPACE, COSTS, limits, effects, 5, seed=3) for _ in range(2))
    assert one == other


def test_without_limits_nothing_changes():
    effects = effects_of(SPACE, BASE, [-loss(path) for path in single_changes(SPACE, BASE)])
    assert promising_paths(SPACE, {}, [], effects, 1) == [BASE]


def test_limits_that_nothing_keeps():
    effects = effects_of(SPACE, BASE, [-loss(path) for path in single_changes(SPACE, BASE)])
    with pytest.raises(InfeasibleError):
        promising_paths(SPACE, COSTS, [Constraint.parse("flops <= 5")], effects, 1)
