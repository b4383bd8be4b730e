"""Which paths are baselines, and the widths that make them cost as much as the winner."""

from __future__ import annotations

import pytest

from nni_spos.baseline import fixed_baseline, random_baselines
from nni_spos.baseline.paths import fixed_path
from nni_spos.baseline.widths import round_widths
from nni_spos.constraint import Constraint
from nni_spos.errors import InfeasibleError, PathError, RecipeError
from nni_spos.evolution import FeasibleSampler
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.supernet.building import build_analytic_costs

SPACE = PathSpace(
    {"a": ["k3", "k5"], "b": ["k3", "k5", "skip"], "bits": ["2w2a", "3w3a"], "w": [8]}
)


def flops_of(recipe, choice, widths):
    """Multiply-adds of the tiny space with one block everywhere, by hand."""
    kernel = {"k3": 9, "k5": 25, "k7": 49}[choice]
    total, channels, pixels = 64 * 9 * 4, 4, 64
    for repeats, width in zip((1, 2), widths, strict=True):
        for position in range(repeats):
            half = width // 2
            if position == 0:  # stride 2: expansion before it, everything else behind it
                total += pixels * channels * half
                pixels //= 4
                total += pixels * (half * kernel + half * (width - channels))
                total += pixels * (channels * kernel + channels * channels)
            else:
                total += pixels * (half * half + half * kernel + half * half)
            channels = width
    return total + pixels * channels * 16 + 16 * 10


def test_one_choice_everywhere():
    path = fixed_path(SPACE, ["k3", "3w3a"])
    assert path == {"a": "k3", "b": "k3", "bits": "3w3a", "w": 8}
    assert fixed_path(PathSpace({"n": [4, 8], "x": [1.5, 2]}), ["8", "1.5"]) == {"n": 8, "x": 1.5}


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (["k3"], "label 'bits' has none of the choices k3"),
        (["k3", "k5", "2w2a"], "label 'a' has several of the choices k3, k5, 2w2a"),
        (["skip", "2w2a"], "label 'a' has none of"),
        (["k3", "2w2a", "k9"], "no label has the choice k9"),
    ],
)
def test_choices_that_make_no_path(choices, words):
    with pytest.raises(PathError, match=words):
        fixed_path(SPACE, choices)


def test_widths_stay_even_and_above_zero():
    assert round_widths([8, 16], 1) == (8, 16)
    assert round_widths([8, 16], 1.13) == (10, 18)  # 9.04 and 18.08, to even numbers
    assert round_widths([8, 16], 0.01) == (2, 2)


@pytest.mark.parametrize("choice", ["k3", "k5", "k7"])
def test_costs_by_hand(recipe, choice):
    space, costs = build_analytic_costs(recipe)
    price = costs["flops"].price(dict.fromkeys(space, choice))
    assert price == flops_of(recipe, choice, (8, 16))


EXACT = 11336
"""Multiply-adds with widths 10 and 20."""


@pytest.mark.slow
@pytest.mark.parametrize("target", [6800, 7000, 9087, 9088, EXACT, 13000, 50000, 123456])
def test_the_widest_network_that_meets_the_target(recipe, target):
    baseline = fixed_baseline(recipe, ["k3"], target)
    multipliers = [i / 4000 for i in range(1200, 40000)]
    by_hand = {m: round_widths((8, 16), m) for m in multipliers}
    fitting = {
        w for w in by_hand.values() if 4 < w[0] < w[1] and flops_of(recipe, "k3", w) <= target
    }
    widest = max(fitting)
    assert baseline.widths.channels == widest
    assert round_widths((8, 16), baseline.widths.multiplier) == widest
    assert baseline.recipe.space.arguments["stage_channels"] == list(widest)
    cost = build_analytic_costs(baseline.recipe)[1]["flops"].price(baseline.path)
    assert cost == flops_of(recipe, "k3", widest) <= target
    if target in (9088, EXACT):
        assert cost == target
    assert baseline.name == f"fixed-k3-{target}"


def test_targets_that_no_widths_meet(recipe):
    with pytest.raises(
        RecipeError, match=r"4k multiply-adds cannot be met: .*narrower ones are ref"
    ):
        fixed_baseline(recipe, ["k3"], 4000)
    with pytest.raises(RecipeError, match="times 8 still have fewer multiply-adds than 1G"):
        fixed_baseline(recipe, ["k3"], 1e9)


def test_a_space_without_widths_is_refused(write):
    recipe = load_recipe(write({"name": "nasbench_macro"}))
    with pytest.raises(RecipeError, match="nasbench_macro: has no argument 'stage_channels'"):
        fixed_baseline(recipe, ["k3e3"], 10**7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "choice", "widths"),
    [("proxylessnas_small", "k3e3", (16, 24, 40)), ("fbnet_small", "k3e1", (16, 32, 64))],
)
def test_other_spaces_are_scaled_from_their_own_widths(write, name, choice, widths):
    recipe = load_recipe(write({"name": name}))
    space, costs = build_analytic_costs(recipe)
    price = costs["flops"].price(dict.fromkeys(space, choice))
    scaled = fixed_baseline(recipe, [choice], price)
    assert scaled.widths.channels == widths
    assert fixed_baseline(recipe, [choice], price - 1).widths.channels < widths


def test_random_paths_meet_the_limit_and_are_a_function_of_the_seed(recipe):
    few, many = random_baselines(recipe, 3, 0), random_baselines(recipe, 8, 0)
    assert [x.name for x in few] == ["random-1", "random-2", "random-3"]
    assert [x.path for x in few] == [x.path for x in many[:3]]
    assert len({tuple(x.path.values()) for x in many}) == 8
    assert random_baselines(recipe, 3, 1)[0].path != few[0].path
    costs = build_analytic_costs(recipe)[1]
    limit = Constraint.parse("flops <= 13k")
    assert all(limit.allows(costs["flops"].price(x.path)) for x in many)


def test_a_path_that_is_drawn_again_counts_once(recipe, monkeypatch):
    monkeypatch.setattr(FeasibleSampler, "ENUMERATE_BELOW", 0)  # else none is drawn again
    paths = [tuple(x.path.values()) for x in random_baselines(recipe, 20, 0)]
    assert len(set(paths)) == 20


def test_random_paths_are_all_that_there_are_or_too_few(recipe):
    space, costs = build_analytic_costs(recipe)
    prices = costs["flops"].price_many(space.enumerate())
    number = int((prices <= 13000).sum())
    assert 8 < number < 64
    assert len(random_baselines(recipe, number, 0)) == number
    with pytest.raises(InfeasibleError, match=f"only {number} paths meet the constraints"):
        random_baselines(recipe, number + 1, 0)
