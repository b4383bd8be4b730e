"""The experiments of the paper: their recipes are valid, their commands are known, and fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_spos.baseline import fixed_baseline
from nni_spos.cli import _parser
from nni_spos.priors import SPOS_BINS
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import build_search
from nni_spos.spaces import read_path
from nni_spos.study import find_study, list_studies, make_plan
from nni_spos.supernet.building import build_recipe_costs
from nni_spos.supernet.training import build_prior

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(file.stem for file in (EXAMPLES / "paper").glob("*.yml"))
PLANS = [(name, scale) for name in NAMES for scale in ("small", "full")]
HOUR = 60


@pytest.fixture(scope="module")
def costs_of():
    """Cost tables of recipes, built once for each space and size of images."""
    known = {}

    def find(recipe):
        key = repr((recipe.space, recipe.data.name, recipe.data.image_size))
        if key not in known:
            known[key] = build_recipe_costs(recipe)
        return known[key]

    return find


def test_there_is_one_for_each_of_the_papers_experiments():
    assert [study.name for study in list_studies()] == NAMES
    assert NAMES == [
        "correlation", "fig2", "fig3", "table3", "table4", "table5", "table6", "table7",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_its_commands_are_of_nni_spos_and_go_on_when_they_are_repeated(name, scale, tmp_path):
    plan = make_plan(find_study(name), scale, output=tmp_path)
    for step in plan.steps:
        options = _parser().parse_args(step.arguments)
        assert options.recipe in {str(recipe.file) for recipe in plan.recipes.values()}
        if step.arguments[0] in ("train", "retrain"):
            assert options.go_on, "a repeated step refuses what is there"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_small_size_takes_less_than_an_hour(name):
    study = find_study(name)
    assert sum(study.scale("small").minutes.values()) < HOUR
    plan = make_plan(study, "small")
    assert {recipe.data.name for recipe in plan.recipes.values()} == {"fashion_mnist"}
    assert {recipe.data.num_train for recipe in plan.recipes.values()} == {10_000}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), PLANS)
def test_the_recipes_can_be_searched_and_trained(name, scale, costs_of):
    plan = make_plan(find_study(name), scale)
    for recipe in plan.recipes.values():
        space, costs = costs_of(recipe)
        build_search(recipe.search, space, costs)
        build_prior(recipe.supernet, space, costs)


@pytest.mark.parametrize(("name", "scale"), PLANS)
@pytest.mark.slow
def test_what_its_commands_name_is_there(name, scale, costs_of):
    plan = make_plan(find_study(name), scale)
    recipes = {str(recipe.file): recipe for recipe in plan.recipes.values()}
    for step in plan.steps:
        options = _parser().parse_args(step.arguments)
        recipe = recipes[options.recipe]
        if "fixed" in step.arguments and options.target is None:
            fixed_baseline(recipe, options.choice)
        if step.arguments[0] == "retrain" and not options.path.endswith(".json"):
            costs_of(recipe)[0].validate(read_path(options.path, recipe.space))


@pytest.mark.parametrize("name", ["fig2", "fig3", "table3", "table5", "table7"])
def test_the_full_size_has_the_papers_settings(name):
    papers = load_recipe(EXAMPLES / "recipes" / "imagenet.yml")
    for recipe in make_plan(find_study(name), "full").recipes.values():
        assert recipe.supernet.steps == papers.supernet.steps == 150_000
        assert recipe.retrain == papers.retrain
        assert recipe.evaluation == papers.evaluation
        assert (recipe.search.population_size, recipe.search.num_generations) == (50, 20)
        if recipe.space.name == "shufflenet" and recipe.supernet.prior == "constrained":
            assert [x.low for x in recipe.supernet.own().prior_bins] == [
                low for low, _ in SPOS_BINS
            ]


@pytest.mark.parametrize(
    ("name", "one", "other", "section"),
    [
        ("fig2", "uniform", "constrained", "supernet"),
        ("fig3", "evolution", "random", "search"),
    ],
)
@pytest.mark.parametrize("scale", ["small", "full"])
def test_what_a_figure_compares_differs_in_one_thing_only(name, one, other, section, scale):
    contents = make_plan(find_study(name), scale).contents
    first, second = ({**contents[x], "output": ""} for x in (one, other))
    assert first != second
    first.pop(section), second.pop(section)
    assert first == second


# Multiply-adds of all convolutions but the first times bits of weights times bits of inputs.
RESNET18_MACS = 1_695_547_392


@pytest.mark.parametrize("scale", ["small", "full"])
@pytest.mark.slow
def test_the_limits_on_bitops_are_the_costs_of_uniform_networks(scale, costs_of):
    recipes = make_plan(find_study("table6"), scale).recipes
    for bits in (2, 3, 4):
        baseline = fixed_baseline(recipes["uniform"], [f"{bits}w{bits}a"])
        cost = costs_of(recipes["uniform"])[1]["bitops"].price(baseline.path)
        (limit,) = recipes[f"at{bits}"].search.constraints
        assert limit.metric == "bitops"
        assert cost <= limit.high < 1.003 * cost
        if scale == "full":
            assert cost == RESNET18_MACS * bits * bits
    networks = {
        word for step in make_plan(find_study("table6"), scale).steps for word in step.arguments
    }
    assert {"2w2a", "3w3a", "4w4a"} <= networks


@pytest.mark.slow
def test_the_channel_search_is_at_the_cost_of_its_network(costs_of):
    for scale, cost in (("full", 295_842_496), ("small", 2_288_992)):
        recipes = make_plan(find_study("table4"), scale).recipes
        space, costs = costs_of(recipes["blocks"])
        assert costs["flops"].price(dict.fromkeys(space, "k3")) == cost
        (limit,) = recipes["channels"].search.constraints
        assert limit.high == cost
