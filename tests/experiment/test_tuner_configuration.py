"""What NNI's configuration tells a tuner."""

import base64
import json
import sys

import pytest
from small_experiments import SPACE, write_recipe

from nni_spos.errors import RecipeError
from nni_spos.experiment.tuner_configuration import (
    check_space,
    code_directory,
    load_tuner_recipe,
    training_platform,
)
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe


def test_the_search_space_must_be_that_of_the_recipe(recipe_file):
    recipe = load_recipe(recipe_file)
    content = json.loads(json.dumps(SPACE.to_search_space()).replace("1.0", "1"))
    check_space(content, SPACE, recipe)
    check_space(dict(reversed(content.items())), SPACE, recipe)
    with pytest.raises(RecipeError, match="label 'b' has no choices instead of the choices 'k3'"):
        check_space({k: v for k, v in content.items() if k != "b"}, SPACE, recipe)
    more = {**content, "c": {"_type": "choice", "_value": [1]}}
    with pytest.raises(RecipeError, match="label 'c' has the choices 1 instead of no choices"):
        check_space(more, SPACE, recipe)
    wrong_type = PathSpace({"x": [1, 2]})
    with pytest.raises(RecipeError, match="label 'x' has the choices '1', '2'"):
        check_space({"x": {"_type": "choice", "_value": ["1", "2"]}}, wrong_type, recipe)


def test_the_recipe_is_relative_to_the_code_directory(tmp_path, monkeypatch):
    write_recipe(tmp_path)
    packed = json.dumps({"tuner": {"codeDirectory": str(tmp_path)}}).encode()
    option = base64.b64encode(packed).decode()
    monkeypatch.setattr(sys, "argv", ["-m", "--exp_params", option])
    assert code_directory() == tmp_path
    assert training_platform() == "local"
    recipe = load_tuner_recipe({"recipe": "recipe.yml", "seed": 5}, code_directory())
    assert recipe.file == tmp_path / "recipe.yml"
    assert recipe.search.seed == 5
