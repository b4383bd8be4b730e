"""Statistics of rankings, against figures by hand and brute force."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from nni_spos.ranking.correlation import (
    Estimate,
    TopOverlap,
    estimate,
    format_rankings,
    kendall_tau,
    rank,
    spearman_rho,
    top_overlap,
)

TIED = [1, 1, 2, 3, 4], [1, 2, 2, 4, 3]
"""Of ten pairs seven agree, one does not, one ties on the left and one on the right."""


def array(*values: float):
    return np.array(values, dtype=float)


@pytest.mark.parametrize(
    ("x", "y", "tau", "rho"),
    [
        ([1, 2, 3], [90, 92, 91], 1 / 3, 1 / 2),  # 2 - 1 of 3 pairs; 1 - 6 * 2 / (3 * 8)
        ([1, 2, 3, 4], [5, 6, 7, 8], 1, 1),
        ([1, 2, 3, 4], [8, 7, 6, 5], -1, -1),
        # (7 - 1) / sqrt(9 * 9); mean ranks 1.5 1.5 3 4 5 and 1 2.5 2.5 5 4.
        (*TIED, 2 / 3, 7.75 / 9.5),
        ([1, 1, 2, 3], [1, 2, 2, 3], 4 / 5, 3.75 / 4.5),  # mean ranks 1.5 1.5 3 4 and 1 2.5 2.5 4
    ],
)
@pytest.mark.slow
def test_correlations_by_hand(x, y, tau, rho):
    assert kendall_tau(array(*x), array(*y)) == pytest.approx(tau, abs=1e-12)
    assert spearman_rho(array(*x), array(*y)) == pytest.approx(rho, abs=1e-12)
    ranking = rank(x, y)
    assert (ranking.tau.value, ranking.rho.value) == pytest.approx((tau, rho), abs=1e-12)


@pytest.mark.parametrize("values", [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [1, 1, 1])])
def test_all_alike_has_no_correlation(values):
    ranking = rank(*values)
    assert ranking.tau == ranking.rho == Estimate(None, None, None)
    assert str(ranking.tau) == "undefined"
    json.dumps(ranking.to_json(), allow_nan=False)


def test_overlap_by_hand():
    x, y = array(5, 4, 3, 2, 1), array(1, 5, 4, 3, 2)
    assert top_overlap(x, y, 2) == TopOverlap(2, 1 / 2, 2 / 5)  # 0 and 1; 1 and 2
    assert top_overlap(x, y, 1) == TopOverlap(1, 0, 1 / 5)
    assert top_overlap(x, x, 3) == TopOverlap(3, 1, 3 / 5)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_overlap_of_ties_is_that_of_all_their_orders(k):
    x, y = array(3, 2, 2, 1, 2), array(7, 7, 8, 8, 1)

    def best(values):
        ways = itertools.permutations(range(len(values)))
        return [set(sorted(way, key=lambda i: -values[i])[:k]) for way in ways]

    pairs = itertools.product(best(x), best(y))
    expected = np.mean([len(one & other) / k for one, other in pairs])
    assert top_overlap(x, y, k).share == pytest.approx(expected)


def test_scores_that_are_all_alike_overlap_by_chance():
    found = top_overlap(np.ones(8), np.arange(8.0), 2)
    assert found.share == found.chance == 1 / 4


def test_random_scores_overlap_by_chance():
    generator = np.random.default_rng(0)
    found = [top_overlap(generator.random(40), generator.random(40), 10).share for _ in range(2000)]
    # Hypergeometric: sd of a share 0.12, of the mean 0.0027.
    assert np.mean(found) == pytest.approx(10 / 40, abs=0.01)


@pytest.mark.slow
def test_the_best_by_score():
    ranking = rank([3, 9, 5], [91, 90, 94])
    assert (ranking.chosen, ranking.best, ranking.regret) == (90, 94, 4)
    ranking = rank([3, 9, 9], [91, 90, 94])
    assert (ranking.chosen, ranking.best, ranking.regret) == (92, 94, 2)


@pytest.mark.parametrize(("count", "ks"), [(10, []), (11, [10]), (101, [10, 50, 100])])
@pytest.mark.slow
def test_overlaps_that_say_something(count, ks):
    values = np.arange(count)
    assert [x.k for x in rank(values, values).top] == ks


def test_the_interval_of_independent_scores():
    x, y = np.random.default_rng(3).random((2, 200))
    tau = rank(x, y).tau
    # Var(tau) = 2 (2n + 5) / (9 n (n - 1)) without ties or dependence (Kendall 1938).
    width = 2 * 1.96 * np.sqrt(2 * 405 / (9 * 200 * 199))
    assert tau.high - tau.low == pytest.approx(width, rel=0.15)
    assert tau.low < tau.value < tau.high
    assert tau.low < 0 < tau.high


def test_the_interval_holds_95_percent():
    x = np.arange(100.0)
    found = estimate(lambda x, y: x.mean(), x, x, seed=0)
    assert found.value == 49.5
    deviation = np.sqrt((100**2 - 1) / 12) / 10  # of a mean of 100 draws
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.08)


def test_the_interval_of_a_perfect_ranking():
    tau = rank(range(30), range(30)).tau
    assert (tau.low, tau.value, tau.high) == pytest.approx((1, 1, 1))


@pytest.mark.slow
def test_resamples_are_of_the_seed_alone():
    x, y = np.random.default_rng(3).random((2, 30))
    state = np.random.get_state()[1].tolist()
    first = rank(x, y, seed=5)
    assert rank(x, y, seed=5) == first
    assert rank(x, y, seed=6).tau.low != first.tau.low
    assert np.random.get_state()[1].tolist() == state


def test_the_table():
    x = [*range(20)]
    y = [70.0 + i for i in range(20)]
    lines = format_rankings({"good": rank(x, y), "flat": rank([0] * 20, y)}).splitlines()
    assert lines[0].split("  ")[0] == "score"
    assert [line.split()[0] for line in lines] == ["score", "good", "flat", "chance"]
    good, flat, chance = (" ".join(line.split()[1:]) for line in lines[1:])
    perfect = "1.000 [1.000, 1.000]"
    assert good == f"{perfect} {perfect} 100.0% 89.00 % 0.00"
    assert flat == "undefined undefined 50.0% 79.50 % 9.50"
    assert chance == "0 0 50.0%"
