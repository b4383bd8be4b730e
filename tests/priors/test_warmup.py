"""Paths of the channel warm-up, and the prior's own after it."""

import re

import numpy as np
import pytest

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import PathError, RecipeError
from nni_spos.path import PathSpace
from nni_spos.priors import ConstrainedPrior, FilteredPrior, Prior, UniformPrior, WarmUpPrior

# The channel numbers are in no order, of different numbers of choices, and one is not warmed up.
SPACE = PathSpace(
    {
        "layer": ["k3", "k5", "xcep"],
        "narrow": [24, 8, 16],
        "wide": [0.6, 1.6, 1, 0.2, 2.0],
        "bits": [2, 4],
        "flag": [True, False],
    }
)
WARMED = ["wide", "narrow"]


def uniform(seed=0):
    return UniformPrior(SPACE, seed=seed)


def choices_by_step(prior, label, steps):
    return [prior.path(step)[label] for step in steps]


def test_widths_are_admitted_one_by_one_from_the_widest():
    # By hand, for 10 steps: 1 + floor(3 t / 10) and 1 + floor(5 t / 10) choices.
    num_narrow = [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    num_wide = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    seen = [{"narrow": set(), "wide": set()} for _ in range(10)]
    for seed in range(200):
        prior = WarmUpPrior(uniform(seed), WARMED, steps=10)
        for step in range(10):
            for label, choices in seen[step].items():
                choices.add(prior.path(step)[label])
    assert [choices["narrow"] for choices in seen] == [set([24, 16, 8][:n]) for n in num_narrow]
    assert [choices["wide"] for choices in seen] == [
        set([2.0, 1.6, 1, 0.6, 0.2][:n]) for n in num_wide
    ]


@pytest.mark.parametrize(("step", "num_widths"), [(0, 1), (5, 3)])
def test_admitted_paths_are_drawn_alike(step, num_widths):
    # 1 or 2 choices of "narrow", 1 or 3 of "wide", and 3 x 2 x 2 of the other labels.
    num_narrow = 1 if step == 0 else 2
    num_paths = 3 * num_narrow * num_widths * 2 * 2
    keys = [
        SPACE.key(WarmUpPrior(uniform(seed), WARMED, steps=10).path(step)) for seed in range(3000)
    ]
    _, counts = np.unique(np.array(keys), axis=0, return_counts=True)
    assert len(counts) == num_paths
    expected = 3000 / num_paths
    statistic = ((counts - expected) ** 2 / expected).sum()
    # Exceeded once in 10,000 seeds: 11 and 71 degrees of freedom.
    assert statistic < {12: 37.4, 72: 122.8}[num_paths]


def test_steps_of_the_warm_up_are_drawn_independently():
    prior = WarmUpPrior(uniform(), WARMED, steps=10**6)
    layers = choices_by_step(prior, "layer", range(3000))
    pairs = [layers[i : i + 2] for i in range(2999)]
    _, counts = np.unique(np.array(pairs), axis=0, return_counts=True)
    assert len(counts) == 9
    expected = 2999 / 9
    assert ((counts - expected) ** 2 / expected).sum() < 31.8  # 8 degrees of freedom


def test_with_fewer_steps_than_widths_the_narrowest_wait_for_the_end():
    at_once = WarmUpPrior(uniform(), ["wide"], steps=1)
    assert at_once.path(0)["wide"] == 2.0
    # Steps 0, 1 and 2 of 3 admit 1, 1 + floor(5 / 3) and 1 + floor(10 / 3) of the 5 widths.
    paths = [WarmUpPrior(uniform(seed), ["wide"], steps=3) for seed in range(100)]
    assert {prior.path(1)["wide"] for prior in paths} == {2.0, 1.6}
    assert {prior.path(2)["wide"] for prior in paths} == {2.0, 1.6, 1, 0.6}
    assert {prior.path(3)["wide"] for prior in paths} == {2.0, 1.6, 1, 0.6, 0.2}


COST = CostTable("flops", SPACE, 0, [Factor(("wide",), np.array([6, 16, 10, 2, 20]))])

PRIORS = {
    "uniform": uniform,
    "constrained": lambda seed: ConstrainedPrior(SPACE, COST, (2, 6), seed=seed),
    "filtered": lambda seed: FilteredPrior(uniform(seed), lambda path: path["layer"] == "k3"),
}


@pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("steps", [0, 1, 3, Prior.BLOCK_SIZE - 1, Prior.BLOCK_SIZE + 5])
def test_after_the_warm_up_paths_are_those_of_the_prior(make, steps):
    prior, plain = WarmUpPrior(make(7), WARMED, steps), make(7)
    for step in [*range(steps, steps + 20), 10**6]:
        assert prior.path(step) == plain.path(step)
    if steps:
        assert prior.path(0)["wide"] == 2.0


def test_drawing_without_a_step_is_drawing_from_the_prior():
    for make in PRIORS.values():
        prior = WarmUpPrior(make(0), WARMED, steps=10)
        drawn = prior.draw(50, np.random.default_rng(3))
        assert drawn.tolist() == make(0).draw(50, np.random.default_rng(3)).tolist()


def test_no_limit_holds_during_the_warm_up():
    prior = WarmUpPrior(PRIORS["constrained"](0), WARMED, steps=100)
    assert COST.price(prior.path(0)) == 20
    assert all(COST.price(prior.path(step)) <= 6 for step in range(100, 200))


def test_paths_of_the_warm_up_depend_on_seed_and_step_only():
    steps = [0, 1, 5, 1023, 1024, 1025, 1999, 2000]
    expected = [WarmUpPrior(uniform(3), WARMED, 2000).path(step) for step in steps]
    prior = WarmUpPrior(uniform(3), WARMED, 2000)
    assert [prior.path(step) for step in reversed(steps)] == expected[::-1]
    assert [prior.path(step) for step in steps] == expected
    other = WarmUpPrior(uniform(4), WARMED, 2000)
    assert [other.path(step) for step in range(20)] != [prior.path(step) for step in range(20)]
    for path in expected:
        assert list(SPACE.validate(path).items()) == list(path.items())


def test_the_order_of_the_labels_does_not_matter():
    one, other = (WarmUpPrior(uniform(), labels, 50) for labels in (WARMED, WARMED[::-1]))
    assert [one.path(step) for step in range(50)] == [other.path(step) for step in range(50)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["narow"],
            "warm-up: label 'narow' is not in the search space; did you mean 'narrow'? "
            "Labels: layer, narrow, wide, bits, flag.",
        ),
        (
            ["wide", "layer"],
            "warm-up: label 'layer' has the choice 'k3', which is not a number. "
            "Only labels of channel numbers can be warmed up.",
        ),
        (["flag"], "label 'flag' has the choice True, which is not a number."),
    ],
)
def test_labels_that_cannot_be_warmed_up_are_refused(labels, message):
    with pytest.raises(PathError, match=re.escape(message)):
        WarmUpPrior(uniform(), labels, steps=10)
    assert WarmUpPrior(uniform(), ["bits"], steps=10).path(0)["bits"] == 4


@pytest.mark.parametrize("steps", [-1, 2.0, "10", True, None])
def test_steps_must_be_a_whole_number_from_0_on(steps):
    with pytest.raises(RecipeError, match=r"must be a whole number from 0 on, got "):
        WarmUpPrior(uniform(), WARMED, steps)
    assert WarmUpPrior(uniform(), WARMED, 0).path(0) == uniform().path(0)


def test_steps_without_labels_are_refused():
    with pytest.raises(RecipeError, match="warm-up of 10 steps needs labels of channel numbers"):
        WarmUpPrior(uniform(), [], steps=10)
    assert WarmUpPrior(uniform(), [], steps=0).path(0) == uniform().path(0)
