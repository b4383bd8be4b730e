import numpy as np
import pytest

from nni_spos.evolution.mutation import mutate, mutation_options


def test_probability_zero_keeps_everything():
    generator = np.random.default_rng(0)
    assert all(mutate((2, 0, 1), (3, 3, 3), 0.0, generator) == (2, 0, 1) for _ in range(100))


def test_probability_one_draws_uniformly():
    generator = np.random.default_rng(0)
    mutants = [mutate((1, 2), (2, 4), 1.0, generator) for _ in range(8000)]
    counts = np.bincount([4 * a + b for a, b in mutants], minlength=8)
    # Chi-square with 7 degrees of freedom: 29.88 is exceeded once in 10,000 seeds.
    assert ((counts - 1000) ** 2 / 1000).sum() < 29.88


@pytest.mark.parametrize("prob", [0.1, 0.5])
def test_a_redrawn_unit_may_get_its_old_choice(prob):
    # So a unit of n choices changes with probability prob * (n - 1) / n.
    generator = np.random.default_rng(0)
    mutants = np.array([mutate((0, 0, 0), (1, 2, 4), prob, generator) for _ in range(10_000)])
    rates = (mutants != 0).mean(axis=0)
    expected = prob * np.array([0, 1 / 2, 3 / 4])
    deviation = np.sqrt(expected * (1 - expected) / 10_000)
    assert (np.abs(rates - expected) <= 4 * deviation).all()


def test_units_mutate_independently():
    generator = np.random.default_rng(0)
    changed = np.array([mutate((0, 0), (2, 2), 0.5, generator) for _ in range(8000)])
    counts = np.bincount(changed @ [2, 1], minlength=4)
    expected = 8000 * np.array([9, 3, 3, 1]) / 16
    # Chi-square with 3 degrees of freedom: 21.11 is exceeded once in 10,000 seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 21.11


def test_positions_are_plain_integers():
    mutant = mutate((0, 1), (3, 3), 0.5, np.random.default_rng(0))
    assert all(type(unit) is int for unit in mutant)


def test_options_are_those_of_the_mutated_units():
    options = mutation_options((0, 1, 2), (0, 2, 0), (2, 3, 4))
    assert [list(positions) for positions in options] == [[0], [0, 1, 2], [0, 1, 2, 3]]
