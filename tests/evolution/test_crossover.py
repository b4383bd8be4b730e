import numpy as np

from nni_spos.evolution.crossover import crossover, crossover_options


def test_every_unit_comes_from_either_parent():
    generator = np.random.default_rng(0)
    children = [crossover((0, 1, 2, 3), (4, 5, 6, 3), generator) for _ in range(100)]
    assert [set(units) for units in zip(*children, strict=True)] == [{0, 4}, {1, 5}, {2, 6}, {3}]
    assert {type(unit) for child in children for unit in child} == {int}


def test_a_path_with_itself_is_itself():
    assert crossover((2, 0, 1), (2, 0, 1), np.random.default_rng(0)) == (2, 0, 1)


def test_all_mixtures_are_alike():
    generator = np.random.default_rng(0)
    children = [crossover((0, 0, 0), (1, 1, 1), generator) for _ in range(8000)]
    counts = np.bincount([4 * a + 2 * b + c for a, b, c in children], minlength=8)
    # Chi-square with 7 degrees of freedom: 29.88 is exceeded once in 10,000 seeds.
    assert ((counts - 1000) ** 2 / 1000).sum() < 29.88


def test_depends_on_the_generator_only():
    children = [crossover((0,) * 30, (1,) * 30, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert children[0] == children[1] != children[2]


def test_options_are_those_of_the_parents():
    options = crossover_options((0, 1, 2), (0, 2, 0))
    assert [list(positions) for positions in options] == [[0], [1, 2], [2, 0]]
