"""Experiments that are found by name work in the current folder, wherever the package is."""

from pathlib import Path

from nni_spos.project.examples import examples_folder
from nni_spos.study import find_study, make_plan

ROOT = Path(__file__).parents[2]


def test_results_and_images_of_a_named_one_are_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = find_study("fig2")
    assert study.file == examples_folder() / "paper" / "fig2.yml"
    plan = make_plan(study, "full")
    assert plan.output == tmp_path / "runs" / "paper" / "fig2" / "full"
    assert {recipe.data.root for recipe in plan.recipes.values()} == {
        str(tmp_path / "data" / "imagenet")
    }
    assert list(tmp_path.iterdir()) == []


def test_those_of_a_file_are_where_the_file_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = make_plan(find_study(str(ROOT / "examples" / "paper" / "fig2.yml")), "full")
    assert plan.output == ROOT / "runs" / "paper" / "fig2" / "full"
    assert {recipe.data.root for recipe in plan.recipes.values()} == {
        str(ROOT / "data" / "imagenet")
    }
