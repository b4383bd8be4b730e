"""``nni-spos new``: a project is an example with its files side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

from nni_spos.cli import _parser, main
from nni_spos.errors import ProjectError
from nni_spos.path import PathSpace
from nni_spos.project import writing
from nni_spos.project.examples import EXAMPLES, examples_folder
from nni_spos.project.writing import CONFIG, RECIPE, SPACE, new_project
from nni_spos.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_every_configuration_of_the_examples_can_be_begun_with():
    configurations = {
        str(file.relative_to(examples_folder()))
        for file in examples_folder().rglob("*.yml")
        if "searchSpaceFile" in yaml.safe_load(file.read_text())
    }
    assert examples_folder() == ROOT / "examples"
    assert {example.config for example in EXAMPLES.values()} == configurations
    assert next(iter(EXAMPLES)) == "digits"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_project_says_what_its_example_says(tmp_path, name):
    example = EXAMPLES[name]
    new_project(tmp_path / "mine", name)
    config = yaml.safe_load(example.file.read_text())
    before = load_recipe(example.file.parent / config["tuner"]["classArgs"]["recipe"])
    after = load_recipe(tmp_path / "mine" / RECIPE)
    assert after.output == tmp_path / "mine" / "output"
    same = {"file": before.file, "output": before.output, "data": before.data}
    if before.space.is_converted:  # its file of weights is where the recipe is
        assert after.space.portable == before.space.portable
        same["space"] = before.space
    assert dataclasses.replace(after, **same) == before
    places = {"root": before.data.root, "folder": before.data.folder}
    assert dataclasses.replace(after.data, **places) == before.data
    if before.data.root is not None:
        assert Path(after.data.root).is_relative_to(tmp_path / "mine" / "data")

    written = yaml.safe_load((tmp_path / "mine" / CONFIG).read_text())
    assert written.pop("trialCommand") == f"nni-spos trial {RECIPE}"
    assert written.pop("searchSpaceFile") == SPACE
    assert written["tuner"].pop("classArgs") == {"recipe": RECIPE}
    space = config.pop("searchSpaceFile")
    config["tuner"].pop("classArgs")
    assert config.pop("trialCommand").startswith("nni-spos trial ")
    assert written == config
    assert json.loads((tmp_path / "mine" / SPACE).read_text()) == json.loads(
        (example.file.parent / space).read_text()
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_project_names_its_own_files_only(tmp_path, name):
    new_project(tmp_path / "mine", name)
    known = {*names(tmp_path / "mine"), "best.json"}
    for file in (tmp_path / "mine").iterdir():
        text = file.read_text()
        assert "../" not in text
        assert "examples/" not in text
        assert set(re.findall(r"[\w./-]+\.(?:yml|json|py)\b", text)) <= known, file


def test_a_search_space_that_is_copied_is_the_one_of_the_recipe(tmp_path):
    from nni_spos.spaces import Form, build_space

    new_project(tmp_path / "mine", "own_model")
    space = build_space("my_model:MySpace", {}, Form.SUBNET, folder=tmp_path / "mine")
    written = json.loads((tmp_path / "mine" / SPACE).read_text())
    assert PathSpace.from_search_space(written) == PathSpace.from_model_space(space)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_tells_what_to_run_and_where_images_go(tmp_path, name):
    project = new_project(tmp_path / "mine", name)
    page = (tmp_path / "mine" / "README.md").read_text()
    assert page.startswith("# mine\n")
    assert EXAMPLES[name].images in page
    commands = re.findall(r"^(nni-spos .*?) +#", page, re.MULTILINE)
    assert commands == list(project.commands)
    for command in commands:
        _parser().parse_args(shlex.split(command)[1:])
    for file in names(tmp_path / "mine"):
        assert file == "README.md" or f"- `{file}`: " in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "own_model"])
def test_check_accepts_it_as_it_is(tmp_path, costs_built_here, monkeypatch, capsys, name):
    new_project(tmp_path / "mine", name)
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["check", CONFIG]) == 0
    output, errors = capsys.readouterr()
    assert output.startswith("spos.yml: valid; ")
    assert errors == ""


def test_files_that_are_mixed_up_are_told_apart(tmp_path, monkeypatch, capsys):
    new_project(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert main(["check", RECIPE]) == 2
    assert capsys.readouterr().err == (
        "RecipeError: recipe.yml: is a recipe. Give an NNI configuration whose tuner names it, "
        "e.g. spos.yml.\n"
    )
    assert main(["train", CONFIG]) == 2
    assert capsys.readouterr().err == (
        "RecipeError: spos.yml: is an NNI configuration. Give the recipe that its tuner names.\n"
    )
    assert names(tmp_path / "mine") == sorted(["README.md", CONFIG, RECIPE, SPACE])


def test_it_tells_what_to_run_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "my search"]) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    assert output.splitlines()[1:] == [
        "Run next:",
        "  cd 'my search'",
        "  nni-spos check spos.yml",
        "  nni-spos train recipe.yml",
        "  nni-spos start spos.yml --output best.json",
        "  nni-spos retrain recipe.yml --path best.json",
    ]
    assert names(tmp_path / "my search") == sorted(["README.md", CONFIG, RECIPE, SPACE])

    assert main(["new", "b", "--example", "image_folder"]) == 0
    assert "Images: Put your images into data: " in capsys.readouterr().out
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["new", "."]) == 0
    assert "cd " not in capsys.readouterr().out
    assert (tmp_path / "here" / "README.md").read_text().startswith("# here\n")


@pytest.mark.parametrize("option", ["--list", "--help"])
def test_the_list_has_a_line_for_each(capsys, option):
    with contextlib.suppress(SystemExit):
        main(["new", option])
    lines = capsys.readouterr().out.splitlines()
    for example in EXAMPLES.values():
        assert f"  {example.name:<14}  {example.about}" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new"], "give the folder of the new project"),
        (["new", "full"], "full: the folder is not empty. Give a new or an empty folder."),
        (["new", "full/file"], "full/file: is not a folder. Give a new or an empty folder."),
        (["new", "link"], "link: is not a folder. Give a new or an empty folder."),
        (["new", "full/file/below"], "NotADirectoryError: "),
        (
            ["new", "mine", "--example", "own_modl"],
            "unknown example 'own_modl'; did you mean 'own_model'? Examples: digits, own_model, ",
        ),
        (["new", "mine", "--example", ""], "unknown example ''. Examples: digits, "),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert main(arguments) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert names(tmp_path) == ["full", "link"]
    assert names(tmp_path / "full") == ["file"]


@pytest.mark.parametrize("there", [False, True])
def test_a_project_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch, there):
    target = tmp_path / "new" / "mine"
    if there:
        target.mkdir(parents=True)
    moved = []

    def rename(source, place):
        if len(moved) == 2:
            raise OSError(28, "No space left on device", str(place))
        moved.append(place)
        os.replace(source, place)

    monkeypatch.setattr(writing.os, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        new_project(target)
    assert len(moved) == 2
    assert names(tmp_path) == (["new"] if there else [])
    assert not there or names(target) == []
    monkeypatch.undo()
    new_project(target)
    with pytest.raises(ProjectError, match="not empty"):
        new_project(target)
