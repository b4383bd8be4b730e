import json

import pytest
from small_experiments import SPACE, write_recipe

from nni_spos.costs.stored import load_costs
from nni_spos.errors import InfeasibleError
from nni_spos.evolution import EvolutionSearch, Nsga2Search, RandomSearch
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import build_search, fingerprint


def build(folder, **search):
    recipe = load_recipe(write_recipe(folder, **search))
    return build_search(recipe.search, *load_costs(recipe))


def test_every_setting_reaches_the_search(tmp_path):
    settings = {
        "population_size": 7,
        "num_generations": 4,
        "top_k": 5,
        "num_mutations": 2,
        "num_crossovers": 1,
        "mutation_prob": 0.3,
        "objective": "top5",
        "seed": 9,
    }
    search = build(tmp_path, **settings)
    assert isinstance(search, EvolutionSearch)
    assert {key: getattr(search, key) for key in settings} == settings


def test_random_search(tmp_path):
    search = build(tmp_path, algorithm="random", seed=3, constraints=["flops <= 4"])
    assert isinstance(search, RandomSearch)
    assert search.seed == 3
    assert sum(SPACE.key(search.ask())) + 1 <= 4


def test_nsga2(tmp_path):
    settings = {"num_mutations": 2, "num_crossovers": 3, "mutation_prob": 0.3, "seed": 3}
    search = build(tmp_path, algorithm="nsga2", cost_objectives=["flops"], **settings)
    assert isinstance(search, Nsga2Search)
    assert search.cost_objectives == ("flops",)
    assert {key: getattr(search, key) for key in settings} == settings


def test_an_infeasible_search_is_refused(tmp_path):
    with pytest.raises(InfeasibleError, match="no path meets"):
        build(tmp_path, constraints=["flops >= 100"])


def test_the_fingerprint_depends_on_what_matters(tmp_path):
    def made(**search):
        return fingerprint(load_recipe(write_recipe(tmp_path, **search)), SPACE, {})

    assert made() == json.loads(json.dumps(made()))
    assert made() == made(seed=0)
    assert made() != made(seed=1)
    assert made() != made(constraints=["flops <= 5"])
    assert made(algorithm="random") == made(algorithm="random", mutation_prob=0.5)
    assert made(mutation_prob=0.5) != made()
    assert made(cost_objectives=["params"]) == made(), "only nsga2 minimises costs"
    assert made(algorithm="nsga2", top_k=9) == made(algorithm="nsga2") != made()
    assert made(algorithm="nsga2", cost_objectives=["params"]) != made(algorithm="nsga2")
    assert made(algorithm="nsga2", cost_objectives=["flops"]) == made(algorithm="nsga2")
    moved = tmp_path / "moved"
    moved.mkdir()
    recipe = load_recipe(write_recipe(moved))
    assert fingerprint(recipe, SPACE, {}) == made(), "a search can be moved"
