"""The JSON Schema of a recipe says what loading it says, as far as JSON Schema can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from nni_spos.cli import main
from nni_spos.errors import SposError
from nni_spos.recipe.json_schema import recipe_schema
from nni_spos.recipe.recipe import SECTIONS, load_recipe
from nni_spos.recipe.spaces import SPACES
from nni_spos.spaces import Form, build_space

ROOT = Path(__file__).parents[2]

RECIPES = sorted(
    file
    for folder in ("examples", "tests")
    for file in (ROOT / folder).rglob("*.yml")
    if "\nsupernet:" in file.read_text(encoding="utf-8")
)

SMALL = {
    "output": "output",
    "space": {"name": "shufflenet_small"},
    "data": {"name": "digits"},
    "supernet": {"epochs": 1},
    "evaluation": {},
    "search": {},
    "retrain": {"steps": 1},
    "latency": [],
    "metrics": [],
}

VALUES = (
    *("", "auto", "digits", "shufflenet", "my_module:Any", "x" * 2000, "flops <= 330M", "1"),
    *(0, 1, -1, 7, 10**30, 0.5, 1.5, float("inf"), float("nan"), True, None),
    *([], ["flops <= 330M"], [0.5], [0, 2], [None], {}, {"a": 0.5}, {16: 0.5}, {"a": -1}),
)


@pytest.fixture(scope="module")
def schema():
    return recipe_schema()


@pytest.fixture(scope="module")
def validator(schema):
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def problem_of_loading(content, folder):
    """Return what loading a recipe and building its space say against it, or ""."""
    file = folder / "recipe.yml"
    file.write_text(yaml.safe_dump(content))
    try:
        recipe = load_recipe(file)
        if recipe.space.name in SPACES.ours and recipe.space.arguments:
            build_space(recipe.space.name, recipe.space.arguments, Form.SUBNET)
    except SposError as problem:
        return str(problem)
    return ""


def test_there_are_recipes_to_look_at():
    assert {"digits.yml", "imagenet.yml", "tiny_recipe.yml"} <= {file.name for file in RECIPES}


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_is_valid(validator, file):
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert [str(problem) for problem in validator.iter_errors(content)] == []


@pytest.mark.slow
def test_what_the_schema_refuses_is_refused_when_a_recipe_is_loaded(validator, tmp_path):
    cases = [{**SMALL, name: value} for name in SMALL for value in VALUES]
    cases += [{key: SMALL[key] for key in SMALL if key != name} for name in SMALL]
    cases += [{**SMALL, "extra": 1}]
    for section, content in SMALL.items():
        if isinstance(content, dict):
            keys = SECTIONS[section].__dataclass_fields__ if section in SECTIONS else ["name"]
            cases += [
                {**SMALL, section: {**content, key: value}}
                for key in [*keys, "extra"]
                for value in VALUES
            ]
    accepted = [case for case in cases if validator.is_valid(case)]
    refused = [case for case in cases if not validator.is_valid(case)]
    assert len(refused) > 500
    assert len(accepted) > 100
    assert [case for case in refused if not problem_of_loading(case, tmp_path)] == []


@pytest.mark.parametrize(
    "name", ["shufflenet_small", "resnet_small", "proxylessnas_small", "nasbench_macro"]
)
def test_arguments_that_the_schema_refuses_are_no_arguments_of_the_space(validator, tmp_path, name):
    keys = [*SPACES.keys(name), "extra"]
    cases = [
        {**SMALL, "space": {"name": name, key: value}}
        for key in keys
        for value in ("3", 1.5, True, None, ["3"], [1.5], {"a": 1})
    ]
    refused = [case for case in cases if not validator.is_valid(case)]
    assert len(refused) > 3 * len(keys)
    assert [case for case in refused if not problem_of_loading(case, tmp_path)] == []
    defaults = {key: value.default for key, value in SPACES.keys(name).items()}
    content = {**SMALL, "space": json.loads(json.dumps({"name": name, **defaults}))}
    assert validator.is_valid(content), "the defaults themselves"


def test_every_key_is_described(schema):
    bare = [
        f"{name}.{key}"
        for name, section in schema["properties"].items()
        for key, value in section.get("properties", {}).items()
        if value["description"].startswith(("Must", "must"))
    ]
    assert bare == []
    epochs = schema["properties"]["supernet"]["properties"]["epochs"]
    assert epochs["description"] == (
        "How long, in passes over the training images, 0 for a converted network that is searched "
        "with the weights that it has; or give `steps`. "
        "Must be a whole number >= 0, below 2^63, or null."
    )
    assert epochs["default"] is None
    small = next(
        x["then"]["properties"]
        for x in schema["properties"]["space"]["allOf"]
        if x["if"]["properties"]["name"]["const"] == "shufflenet_small"
    )
    assert small["stage_repeats"]["default"] == [2, 4, 2]
    assert small["stage_repeats"]["items"] == {"type": "integer"}


def test_a_users_components_may_have_any_keys(validator):
    own = {**SMALL, "data": {"name": "my_data:Own", "noise": 1}, "space": {"name": "a:B", "x": []}}
    assert validator.is_valid(own)
    assert not validator.is_valid({**SMALL, "data": {"name": "digits", "noise": 1}})
    assert not validator.is_valid({**SMALL, "data": {"name": "my_data:Own", "workers": "one"}})


def test_components_have_their_keys_and_no_others(validator):
    def is_valid(section, **keys):
        return validator.is_valid({**SMALL, section: {**SMALL[section], **keys}})

    assert is_valid("search", top_k=3)
    assert not is_valid("search", top_k=0)
    assert not is_valid("search", topk=3)
    assert is_valid("search", algorithm="random", top_k=3), "a key of another one of ours"
    assert not is_valid("search", algorithm="random", top_k=0)
    assert is_valid("search", algorithm="my_search:Search", patience=3)
    assert is_valid("supernet", prior="constrained", prior_quantiles=[0, 1])
    assert not is_valid("supernet", prior_quantiles=[0, 1])
    assert not is_valid("supernet", prior="constrained", prior_quantiles=[0, 2])
    assert is_valid("supernet", prior="my_prior:Prior", lean=[2])
    for metric, allowed in (("flops", True), ("a:B", True), ("flop", False), ({"pj": 1}, False)):
        assert validator.is_valid({**SMALL, "metrics": [metric]}) is allowed
    assert validator.is_valid({**SMALL, "metrics": [{"name": "a:B", "pj": 1}]})


def test_the_command_prints_it(schema, capsys, tmp_path):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema
    assert main(["schema", "--output", str(tmp_path / "recipe.json")]) == 0
    assert json.loads((tmp_path / "recipe.json").read_text()) == schema
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "JSON Schema of recipes" in capsys.readouterr().out
