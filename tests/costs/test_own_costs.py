"""The costs of a user's own space, which change with its code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nni_spos.cli import main
from nni_spos.costs import stored as costs
from nni_spos.costs.stored import load_costs
from nni_spos.errors import RecipeError
from nni_spos.recipe.recipe import load_recipe

pytestmark = pytest.mark.spawn

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model"


@pytest.fixture
def recipe(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "own")
    return load_recipe(tmp_path / "examples" / "own" / "recipe.yml")


def test_they_are_built_anew_when_the_code_has_changed(recipe, monkeypatch):
    assert main(["costs", str(recipe.file)]) == 0
    with monkeypatch.context() as patch:
        patch.delattr(costs.subprocess, "run")  # what is on the disk is used
        space, before = load_costs(recipe)
    path = {label: choices[0] for label, choices in space.items()}
    module = recipe.file.with_name("my_model.py")
    module.write_text(module.read_text().replace("k{size}", "block_{size}"))
    changed, _ = load_costs(recipe)
    assert changed["block_1"] == ("block_3", "block_5", "skip")
    assert list(changed) == list(space)
    module.write_text(module.read_text().replace("block_{size}", "k{size}") + "\n")
    assert load_costs(recipe)[1]["flops"].price(path) == before["flops"].price(path)


def test_what_is_wrong_in_the_code_is_the_error_of_the_process_that_builds_them(recipe):
    module = recipe.file.with_name("my_model.py")
    module.write_text("import no_such_module_anywhere\n")
    with pytest.raises(RecipeError, match=r"^space my_model:MySpace: cannot import 'my_model'"):
        load_costs(recipe)


@pytest.mark.parametrize("code", ["import sys\nsys.exit(0)\n", "raise SystemExit('bye')\n"])
def test_code_that_ends_the_process_is_an_error_too(recipe, capsys, code):
    """It would end the command, with success."""
    module = recipe.file.with_name("my_model.py")
    module.write_text(module.read_text() + code)
    assert main(["costs", str(recipe.file)]) == 2
    assert "the code of the space ends the process (sys.exit(" in capsys.readouterr().err
    assert not recipe.files.costs.exists()
