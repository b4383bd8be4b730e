import numpy as np
import pytest

from nni_spos.constraint import Constraint
from nni_spos.evolution import RandomSearch


def test_results_do_not_guide_it(space, costs, run, score):
    settings = {"population_size": 10, "num_generations": 5, "seed": 3}
    asked = run(RandomSearch(space, costs, **settings), score)
    again = run(RandomSearch(space, costs, **settings), lambda path: {"top1": 0.0})
    assert asked == again


@pytest.mark.slow
def test_draws_uniformly_among_feasible_paths(space, costs, run):
    limits = [Constraint.parse("flops <= 1")]  # 1 + 6 paths
    counts = np.zeros((7, 7))
    for seed in range(700):
        search = RandomSearch(
            space, costs, constraints=limits, population_size=7, num_generations=1, seed=seed
        )
        for place, path in enumerate(run(search, lambda path: {"top1": 0.0})):
            key = space.key(path)
            counts[place, key.index(1) if 1 in key else 6] += 1
    # Chi-square with 6 degrees of freedom: 27.86 is exceeded once in 10,000 times.
    assert (((counts - 100) ** 2 / 100).sum(axis=1) < 27.86).all()
