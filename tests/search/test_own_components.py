"""A user's metric, prior and search: named after modules beside the recipe, or as a plug-in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from plugins import install_plugin
from trained_recipes import write_untrained

from nni_spos import components
from nni_spos.cli import main
from nni_spos.constraint import Constraint
from nni_spos.costs.stored import are_built, load_costs, save_costs
from nni_spos.errors import ConstraintError, CostError, PathError, RecipeError, SearchError
from nni_spos.evolution import RandomSearch
from nni_spos.metrics import format_metric, metric_title
from nni_spos.priors.building import build_prior
from nni_spos.process import user_modules
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import build_search, fingerprint
from nni_spos.supernet.building import build_recipe_costs
from nni_spos.testing import metrics, priors, searches
from nni_spos.testing.small_space import COSTS, SPACE

EXAMPLE = Path(__file__).parents[1] / "plugin" / "example_plugin"
NAMES = {"energy": "energy:Energy", "lean": "lean:Lean", "local": "local:Local"}
GROUPS = {
    "nni_spos.metrics": {"energy_nj": "energy:Energy"},
    "nni_spos.priors": {"lean": "lean:Lean"},
    "nni_spos.searches": {"local": "local:Local"},
}
PLUGINS = {"energy": "energy_nj", "lean": "lean", "local": "local"}


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """No module or entry point that a test finds stays."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(user_modules, "_folders", {})
    before = set(sys.modules)
    components._installed.cache_clear()
    yield
    components._installed.cache_clear()
    for name in set(sys.modules) - before:
        if name in NAMES or name.startswith("my_"):
            del sys.modules[name]


@pytest.fixture
def beside(tmp_path):
    """A folder with the three modules."""
    for name in NAMES:
        shutil.copy(EXAMPLE / f"{name}.py", tmp_path)
    return tmp_path


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The three as a plug-in."""
    folder = tmp_path / "installed"
    texts = {name: (EXAMPLE / f"{name}.py").read_text() for name in NAMES}
    install_plugin(folder, "example", GROUPS, **texts)
    monkeypatch.syspath_prepend(folder)


def write(folder, names, **keys):
    """Write a recipe that names all three, with other keys by section."""
    recipe = write_untrained(folder)
    content = yaml.safe_load(recipe.file.read_text())
    content["supernet"] |= {"prior": names["lean"], **keys.get("supernet", {})}
    content["search"] = {
        "algorithm": names["local"],
        "population_size": 4,
        "num_generations": 2,
        **keys.get("search", {}),
    }
    content["metrics"] = keys.get("metrics", [names["energy"]])
    recipe.file.write_text(yaml.safe_dump(content))
    return load_recipe(recipe.file)


def try_all(recipe):
    space, costs = build_recipe_costs(recipe)
    assert list(costs) == ["flops", "params", "energy_nj"]
    prior = build_prior(recipe.supernet, space, costs)
    assert (type(prior).__name__, prior.lean) == ("Lean", 3)
    search = build_search(recipe.search, space, costs)
    assert (type(search).__name__, search.reach) == ("Local", 0.5)
    limit = recipe.search.constraints[0]
    assert limit.allows(costs["energy_nj"].price(search.ask()))
    return search


KEYS = {
    "supernet": {"lean": 3},
    "search": {"reach": 0.5, "constraints": ["energy_nj <= 900"]},
}


def test_beside_the_recipe(beside):
    try_all(write(beside, NAMES, **KEYS))


def test_installed(installed, tmp_path):
    try_all(write(tmp_path, PLUGINS, **KEYS))
    assert metric_title("energy_nj") == "energy (nJ)"


def test_a_metric_of_a_plug_in_that_the_recipe_does_not_list(installed, tmp_path):
    recipe = write(tmp_path, PLUGINS, **KEYS, metrics=[])
    space, costs = build_recipe_costs(recipe)
    with pytest.raises(ConstraintError) as caught:
        build_search(recipe.search, space, costs)
    assert str(caught.value) == (
        "constraint 'energy_nj <= 900': unknown metric 'energy_nj'. Metrics: flops, params. A "
        "plug-in has it: list it in the recipe, 'metrics: [energy_nj]'."
    )


def test_the_keys_of_a_metric(beside):
    def price(**keys):
        recipe = write(beside, NAMES, metrics=[{"name": NAMES["energy"], **keys}])
        table = build_recipe_costs(recipe)[1]["energy_nj"]
        return table.dearest()[0]

    assert price(pj_per_mac=9.0, pj_per_output=40) == pytest.approx(2 * price())
    with pytest.raises(RecipeError, match=r"^metric energy:Energy: unknown key 'pj'\. Keys: pj_"):
        price(pj=3)
    with pytest.raises(RecipeError, match=r"^metric energy:Energy\.pj_per_mac: got -1; must be"):
        price(pj_per_mac=-1)


def test_costs_are_kept_with_their_units_and_become_stale(beside, capsys):
    recipe = write(beside, NAMES, **KEYS)
    assert not are_built(recipe)
    save_costs(recipe, *build_recipe_costs(recipe))
    assert are_built(recipe)
    assert load_costs(recipe)[1]["energy_nj"].dearest()[0] > 0
    assert (metric_title("energy_nj"), format_metric("energy_nj", 1500)) == (
        "energy (nJ)",
        "1.5k nJ",
    )
    file = beside / "energy.py"
    file.write_text(file.read_text().replace("/ 1000", "/ 1001"))
    assert not are_built(load_recipe(recipe.file))
    assert main(["profile", str(recipe.file)]) == 0
    assert "energy (nJ)" in capsys.readouterr().out


def test_a_search_depends_on_costs_that_are_not_ours(beside):
    recipe = write(beside, NAMES, **KEYS)
    space, costs = build_recipe_costs(recipe)
    before = fingerprint(recipe, space, costs)
    assert fingerprint(recipe, space, {**costs, "params": costs["flops"]}) == before
    assert fingerprint(recipe, space, {**costs, "energy_nj": costs["flops"]}) != before


@pytest.mark.parametrize(
    ("section", "keys", "message"),
    [
        ("search", {"algorithm": "locl:Local"}, r"search locl:Local: cannot import 'locl' \(there"),
        ("search", {"algorithm": "local:Locl"}, "search local:Locl: module 'local' has no 'Locl'"),
        ("search", {"algorithm": "lean:Lean"}, "search lean:Lean: is a Lean, not a Search"),
        ("search", {"reech": 1}, "search: unknown key 'reech'; did you mean 'reach'. Keys: alg"),
        ("search", {"reach": 2}, "search.reach: got 2; must be a number from 0 to 1"),
        ("search", {"algorithm": "os:system"}, "search os:system: is a builtin_function_or_method"),
        ("supernet", {"prior": "local:Local"}, "prior local:Local: is a Local, not"),
        ("supernet", {"leen": 1}, "supernet: unknown key 'leen'; did you mean 'lean'. Keys: epo"),
        ("supernet", {"prior_bins": ["flops <= 3"]}, "supernet: the prior lean:Lean has no prio"),
        ("supernet", {"lean": 0}, "supernet.lean: got 0; must be a number >= 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_when_it_is_built(beside, section, keys, message):
    recipe = write(beside, NAMES, **{section: keys})
    build = {"search": build_search, "supernet": build_prior}[section]
    with pytest.raises(RecipeError, match=f"^{message}"):
        build(getattr(recipe, section), SPACE, COSTS)


def own(folder, text, name, **keys):
    (folder / "my_code.py").write_text(text)
    return write(folder, {**NAMES, **name}, **keys)


SEARCH = """
from nni_spos.evolution import Search
from dataclasses import dataclass
from nni_spos.recipe.settings import COUNT, setting
class Own(Search):
{}
    def propose(self, generator):
        {}
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "yield (0,)",
            "search Own: propose must yield tuples of 3 whole numbers, the pos",
        ),
        ("yield (0, 0, 3)", "search Own: propose must yield tuples of 3 whole numbers"),
        ("yield [0, 0, 0]", "search Own: propose must yield tuples of 3 whole numbers"),
        (
            "yield from [(0, 0, 0)] * 2",
            "search Own: proposed a path twice, or one that br",
        ),
    ],
)
def test_what_a_search_proposes_is_checked(tmp_path, body, message):
    recipe = own(tmp_path, SEARCH.format("", body), {"local": "my_code:Own", "lean": "uniform"})
    search = build_search(recipe.search, SPACE, COSTS)
    with pytest.raises(SearchError, match=f"^{message}"):
        search.ask()


SETTINGS = """
    {}
    class Settings:
        {}: int = setting(COUNT, 0)
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            SETTINGS.format("", "a"),
            "search my_code:Own: its class Settings is no data",
        ),
        (
            SETTINGS.format("@dataclass(frozen=True)", "seed"),
            "search my_code:Own: its key 'seed' is one of the section search too. Give it another",
        ),
        (
            "    def __init__(self, *args, **keys): raise KeyError('nothing')",
            r"search my_code:Own: cannot be made: KeyError: 'nothing' \(my_code.py, line 6\)",
        ),
    ],
)
def test_a_search_that_cannot_be_made(tmp_path, settings, message):
    text = SEARCH.format(settings, "yield (0, 0, 0)")
    recipe = own(tmp_path, text, {"local": "my_code:Own", "lean": "uniform"})
    with pytest.raises(RecipeError, match=f"^{message}"):
        build_search(recipe.search, SPACE, COSTS)


PRIOR = """
import numpy as np
from nni_spos.priors import Prior
class Own(Prior):
    def draw(self, num_paths, generator):
        return {}
"""


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (
            "np.zeros((num_paths, 3))",
            r"draw must return an array of whole numbers of shape \(1024",
        ),
        ("np.zeros((num_paths, 2), int)", "draw must return an array of whole numbers of shape"),
        ("[[0, 0, 0]] * num_paths", "draw must return an array .* got list and list"),
        ("np.full((num_paths, 3), -1)", "draw returned a position that a label has not"),
        ("np.full((num_paths, 3), 2)", "draw returned a position that a label has not"),
    ],
)
def test_what_a_prior_draws_is_checked(tmp_path, drawn, message):
    names = {"lean": "my_code:Own", "local": "random"}
    recipe = own(tmp_path, PRIOR.format(drawn), names)
    prior = build_prior(recipe.supernet, SPACE, COSTS)
    with pytest.raises(PathError, match=f"^prior Own: {message}"):
        prior.path(0)


METRIC = """
from nni_spos.metrics import LayerMetric
class Own(LayerMetric):
    {}
    def of_layer(self, layer):
        return {}
"""


@pytest.mark.parametrize(
    ("name", "cost", "message"),
    [
        ("name = 'Energy'", "1", "metric Own: its attribute 'name' must be small letters, digits"),
        ("", "1", "metric Own: its attribute 'name' must be small letters"),
        ("name = 'flops'", "1", "metric Own: another metric is called 'flops' too"),
        ("name = 'latency_ms'", "1", "metric Own: another metric is called 'latency_ms' too"),
        ("name = 'own'", "'one'", "metric own: a cost must be a finite number, got 'one'"),
        ("name = 'own'", "float('nan')", "metric own: a cost must be a finite number, got nan"),
        (
            "name = 'own'",
            "layer.nothing",
            r"metric Own: cannot be computed: .*no attribute 'nothing' \(my_code.py, line 6\)",
        ),
    ],
)
def test_what_a_metric_says_is_checked(tmp_path, name, cost, message):
    text = METRIC.format(name, cost)
    names = {"energy": "my_code:Own", "lean": "uniform", "local": "random"}
    recipe = own(tmp_path, text, names)
    with pytest.raises(CostError, match=f"^{message}"):
        build_recipe_costs(recipe)


def test_a_metric_of_whole_numbers_stays_exact(tmp_path):
    text = METRIC.format("name = 'outputs'", "layer.output_shape[-1]")
    names = {"energy": "my_code:Own", "lean": "uniform", "local": "random"}
    recipe = own(tmp_path, text, names, search={"constraints": ["outputs <= 1M"]})
    space, costs = build_recipe_costs(recipe)
    search = build_search(recipe.search, space, costs)
    assert isinstance(search, RandomSearch)
    assert type(costs["outputs"].price(search.ask())) is int
    assert search.sampler.constraints == (Constraint("outputs", high=1e6),)


def test_another_search_leaves_the_keys_of_a_users(beside):
    search = write(beside, NAMES, **KEYS).search
    ours = search.changed({"algorithm": "evolution", "top_k": 3}, "classArgs")
    assert (ours.own().top_k, dict(ours.arguments)) == (3, {"top_k": 3})
    assert search.changed({"seed": 5}, "classArgs").own().reach == 0.5
    back = ours.changed({"algorithm": NAMES["local"], "reach": 0.1}, "classArgs")
    assert back.own().reach == 0.1, "keys of ours are left aside"


@pytest.mark.parametrize("check", metrics.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.slow
def test_the_metric_keeps_the_promises(check, beside):
    check(metrics.MetricCase(NAMES["energy"], beside, pj_per_mac=3.0))


@pytest.mark.parametrize("check", priors.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.slow
def test_the_prior_keeps_the_promises(check, beside):
    check(priors.PriorCase(NAMES["lean"], beside, lean=1.5))


@pytest.mark.parametrize("check", searches.CHECKS, ids=lambda check: check.__name__)
def test_the_search_keeps_the_promises(check, beside):
    check(searches.SearchCase(NAMES["local"], beside, reach=0.5))
