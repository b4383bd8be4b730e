"""Which choices are ranked too high or too low, against what was planted and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nni_spos.path import PathSpace
from nni_spos.ranking.choice_bias import ChoiceBias, choice_biases, format_biases

SPACE = PathSpace({"a": ["k3", "k5", "k7"], "b": [2, 4], "c": ["only"], "d": ["x", "y", "z", "w"]})
ALL = SPACE.enumerate()


def by_name(biases) -> dict:
    return {(x.label, x.choice): x.bias for x in biases}


def test_the_same_order_has_no_bias():
    accuracies = np.random.default_rng(0).random(len(ALL))
    biases = choice_biases(SPACE, ALL, np.exp(accuracies), accuracies)
    assert [(x.label, x.choice) for x in biases] == [
        (label, choice) for label in ("a", "b", "d") for choice in SPACE[label]
    ]
    assert all(x.bias == pytest.approx(0, abs=1e-9) and not x.stands_out for x in biases)
    assert format_biases(biases) == "none that stands out"


def test_all_paths_have_the_means_of_the_choices():
    # With every combination once, least squares are differences of means.
    scores, accuracies = np.random.default_rng(1).random((2, len(ALL)))
    misplaced = (stats.rankdata(scores) - stats.rankdata(accuracies)) * 100 / len(ALL)
    biases = by_name(choice_biases(SPACE, ALL, scores, accuracies))
    for unit, label in enumerate(SPACE):
        for position, choice in enumerate(SPACE[label]):
            if label != "c":
                expected = misplaced[ALL[:, unit] == position].mean()
                assert biases[label, choice] == pytest.approx(expected)


def test_ties_have_their_mean_percentile():
    space = PathSpace({"a": [1, 2]})
    indices = np.array([[0], [0], [1], [1]])
    # Percentiles by score 25 25 75 75, by accuracy 12.5 87.5 50 50 (two tie).
    low, high = choice_biases(space, indices, [1, 1, 2, 2], [1, 3, 2, 2])
    assert (low.bias, high.bias) == pytest.approx((-25, 25))
    # Deviations from the means are 37.5, -37.5, 0 and 0, with two degrees of freedom; a bias is
    # half the difference of two means of two each.
    deviation = np.sqrt(2 * 37.5**2 / 2)
    assert high.standard_error == low.standard_error == pytest.approx(deviation / 2)


def test_the_biases_of_a_unit_add_up_to_nothing():
    generator = np.random.default_rng(2)
    rows = ALL[generator.integers(0, len(ALL), 200)]
    biases = choice_biases(SPACE, rows, generator.random(200), generator.random(200))
    for label in ("a", "b", "d"):
        assert sum(x.bias for x in biases if x.label == label) == pytest.approx(0, abs=1e-9)


def test_a_planted_bias_is_found_whatever_else_differs():
    generator = np.random.default_rng(3)
    # Choices that go together: the unit d is nearly the unit a's choice again.
    rows = ALL[generator.integers(0, len(ALL), 600)]
    together = generator.random(600) < 0.7
    rows[together, 3] = rows[together, 0]
    accuracies = generator.normal(size=600)
    scores = accuracies + 0.5 * (rows[:, 0] == 2) + generator.normal(scale=0.1, size=600)
    biases = choice_biases(SPACE, rows, scores, accuracies)
    assert [(x.label, x.choice) for x in biases if x.stands_out] == [
        ("a", "k3"),
        ("a", "k5"),
        ("a", "k7"),
    ]
    found = by_name(biases)
    assert found["a", "k7"] > 5 > 0 > max(found["a", "k3"], found["a", "k5"])
    assert format_biases(biases, 1).startswith("a=k7 +")


def test_standard_errors_are_those_of_repeats():
    generator = np.random.default_rng(4)
    found = []
    for _ in range(400):
        rows = ALL[generator.integers(0, len(ALL), 100)]
        found.append(choice_biases(SPACE, rows, generator.random(100), generator.random(100)))
    for column in zip(*found, strict=True):
        spread = np.std([x.bias for x in column])
        assert np.mean([x.standard_error for x in column]) == pytest.approx(spread, rel=0.15)
        outside = np.mean([x.stands_out for x in column])
        assert outside < 0.09  # 0.048 on average, standard deviation 0.011


@pytest.mark.parametrize(("number", "some"), [(13, False), (14, True)])
def test_enough_paths(number, some):
    values = np.random.default_rng(5).random((2, number))
    rows = np.random.default_rng(6).permutation(ALL)[:number]  # 1 + 2 + 1 + 3 numbers
    assert bool(choice_biases(SPACE, rows, *values)) == some


def test_choices_that_the_paths_do_not_tell_apart():
    values = np.random.default_rng(7).random((2, len(ALL)))
    absent = ALL.copy()
    absent[absent[:, 3] == 3, 3] = 0  # one is in no path
    assert choice_biases(SPACE, absent, *values) == ()
    alike = ALL.copy()
    alike[:, 1] = alike[:, 0] > 0  # k3 is always with 2, others with 4
    assert choice_biases(SPACE, alike, *values) == ()
    assert choice_biases(SPACE, ALL, *values) != ()


def test_one_line():
    biases = [ChoiceBias("a", 1, 5.0, 1.0), ChoiceBias("a", 2, -7.25, 2.0)]
    assert (
        format_biases([*biases, ChoiceBias("b", 1, 9.0, 4.5)]) == "a=2 -7.2 ± 2.0, a=1 +5.0 ± 1.0"
    )
    assert format_biases(biases, 1) == "a=2 -7.2 ± 2.0"
    assert format_biases([]) == "none that stands out"
