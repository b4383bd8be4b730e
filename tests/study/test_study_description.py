"""What an experiment's file may say, and how its recipes come about."""

from __future__ import annotations

from pathlib import Path

import pytest

from nni_spos.errors import RecipeError
from nni_spos.study import load_study, make_plan
from nni_spos.study.recipes import merge_recipes, read_override


def test_the_tiny_experiment(tiny):
    study = load_study(tiny)
    assert study.name == "tiny"
    assert study.output == tiny.parent / "runs"
    assert [x.name for x in study.steps_of("tiny")] == [
        "train", "search", "retrain", "fixed", "random", "random-search",
    ]  # fmt: skip
    assert study.steps_of("large")[-1].name == "never"


def set_key(*keys, value):
    def how(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return how


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (set_key("titel", value="x"), "tiny.yml: unknown key 'titel'; did you mean 'title'?"),
        (set_key("steps", value=[]), "needs at least one scale and one step"),
        (set_key("steps", 0, "name", value="search"), "two steps are named 'search'"),
        (set_key("steps", 0, "name", value="../x"), "step 1.name: got '../x'; must be a name"),
        (set_key("steps", 0, "run", value="train {block}"), "{block} stands for nothing; did you"),
        (set_key("steps", 0, "run", value="train {limit.output}"), "stands for nothing"),
        (set_key("steps", 0, "run", value="train {0.x}"), "has a brace that is not of a name"),
        (set_key("steps", 0, "run", value="train 'x"), "No closing quotation"),
        (set_key("steps", 0, "scales", value=["tinny"]), "unknown scale 'tinny'; did you mean 'ti"),
        (set_key("tables", 0, "kind", value="network"), "must be one of networks, searches"),
        (set_key("tables", 0, "of", value={"x": "{what}"}), "{what} stands for nothing"),
        (set_key("scales", "tiny", "minutes", value={"train": 1}), "'fixed' has no estimate"),
        (set_key("scales", "tiny", "minutes", "trian", value=1), "'trian' is not a step of this "),
        (set_key("scales", "tiny", "minutes", "train", value=-1), "minutes: got "),
        (set_key("scales", "tiny", "values", value={"blocks": "x"}), "stands for two things"),
        (set_key("scales", "tiny", "variants", value={"output": {}}), "stands for two things"),
        (set_key("scales", "tiny", "variants", value={"a/b": {}}), "variants: got {'a/b': {}}"),
        (
            set_key("scales", "tiny", "variants", "blocks", "output", value="/x"),
            "unknown variant",
        ),
        (set_key("scales", "tiny", "variants", "blocks", "base", value=["x"]), "base: must be the"),
        (set_key("scales", value=3), "scales: got 3; must be a mapping of names to mappings"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(change, how, words):
    file = change(lambda content: None)
    load_study(file)
    with pytest.raises(RecipeError) as problem:
        load_study(change(how))
    assert words in str(problem.value)
    assert str(problem.value).startswith("tiny.yml")
    assert "\n" not in str(problem.value)


def test_a_wrong_recipe_names_scale_and_variant(change):
    file = change(set_key("scales", "tiny", "changes", value={"retrain": {"epoch": 2}}))
    study = load_study(file)
    with pytest.raises(RecipeError, match=r"^tiny\.yml: scales\.tiny: blocks\.yml: retrain:"):
        make_plan(study, "tiny")
    make_plan(study, "large")


def test_later_changes_win_and_null_leaves_out(change, tmp_path):
    def how(content):
        scale = content["scales"]["tiny"]
        scale["changes"] = {"supernet": {"epochs": None, "steps": 3}, "search": {"seed": 1}}
        scale["variants"] = {
            "blocks": {"search": {"seed": 2}},
            "other": {"base": "tiny_recipe.yml", "output": "blocks"},
        }

    study = load_study(change(how))
    overrides = [read_override("search.seed=3"), read_override("data.root=here")]
    recipes = merge_recipes(study, "tiny", [], tmp_path / "out")
    assert recipes["blocks"]["supernet"] == {
        "steps": 3, "batch_size": 20, "learning_rate": 0.1, "warmup_steps": 1,
    }  # fmt: skip
    assert [recipes[x]["search"]["seed"] for x in ("blocks", "other")] == [2, 1]
    assert recipes["blocks"]["output"] == recipes["other"]["output"] == str(tmp_path / "out/blocks")
    recipes = merge_recipes(study, "tiny", overrides, tmp_path / "out")
    assert [recipes[x]["search"]["seed"] for x in ("blocks", "other")] == [3, 3]
    assert recipes["other"]["data"]["root"] == str(Path.cwd() / "here")


def test_files_are_those_of_the_recipe_that_names_them(change, tmp_path):
    base = tmp_path / "deep" / "base.yml"
    base.parent.mkdir()
    text = (tmp_path / "tiny_recipe.yml").read_text()
    base.write_text(
        text.replace("name: digits", "name: digits, root: images") + "\nlatency: [a.json]"
    )

    def how(content):
        content["scales"]["tiny"]["base"] = "deep/base.yml"
        content["scales"]["large"]["base"] = "deep/base.yml"
        content["scales"]["large"]["changes"] = {"data": {"root": "images"}}

    study = load_study(change(how))
    recipe = merge_recipes(study, "tiny", [], tmp_path)["blocks"]
    assert recipe["data"]["root"] == str(tmp_path / "deep" / "images")
    assert recipe["latency"] == [str(tmp_path / "deep" / "a.json")]
    recipe = merge_recipes(study, "large", [], tmp_path)["blocks"]
    assert recipe["data"]["root"] == str(tmp_path / "images")


@pytest.mark.parametrize("text", ["epochs=2", "supernet.epochs", ".x=1", "x.=1", "a.b=[", "a.b=*x"])
def test_overrides_that_are_none(text):
    with pytest.raises(RecipeError, match="--set: "):
        read_override(text)


def test_placeholders_are_words_of_a_command(change, tmp_path):
    output = tmp_path / "with space"
    plan = make_plan(load_study(change(lambda content: None)), "tiny", output=output)
    assert plan.steps[1].arguments == [
        "search", str(output / "recipes/blocks.yml"), "--output", str(output / "blocks/best.json"),
    ]  # fmt: skip
    assert "'" in plan.steps[1].command
    assert plan.steps[3].arguments[-1] == "13k"
    assert not output.exists()
