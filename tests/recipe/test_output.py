"""The names of files in an output folder are spelled in one place, and all of them are there."""

import ast
from pathlib import Path

import pytest
from trained_recipes import write_untrained

import nni_spos
from nni_spos.cli import main
from nni_spos.files.atomic import previous
from nni_spos.recipe.output import (
    Output,
    SearchFolder,
    repetition,
    training_curves,
    training_folder,
)
from nni_spos.recipe.recipe import load_recipe

PACKAGE = Path(nni_spos.__file__).parent
HOME = PACKAGE / "recipe" / "output.py"
FOLDER = Output(Path("output"))


def names() -> set[str]:
    """Names of all files and folders that have no digest in them."""
    paths = [
        getattr(owner, name)
        for owner in (FOLDER, FOLDER.search)
        for name, value in vars(type(owner)).items()
        if isinstance(value, property)
    ]
    return {path.name for path in paths if isinstance(path, Path)}


def spelled(file: Path) -> set[str]:
    """Texts in the code of a module, its docstrings aside."""
    return {
        node.value
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_no_other_module_spells_a_name_with_a_suffix():
    files = {name for name in names() if "." in name.strip(".")}
    assert {"supernet.pt", "costs.json", "search.jsonl", "run.json", "retrained.pt"} <= files
    assert files <= spelled(HOME)
    # NNI serves it under a name of its own, from the experiment's folder.
    elsewhere = {PACKAGE / "experiment" / "shared_supernet.py": {"supernet.pt"}}
    for module in PACKAGE.rglob("*.py"):
        if module != HOME:
            assert not spelled(module) & files - elsewhere.get(module, set()), module


def test_a_search_is_found_where_nni_or_a_recipe_has_it():
    assert FOLDER.search == SearchFolder(Path("output/search"))
    assert FOLDER.search_in("random").journal == Path("output/random/search.jsonl")


def test_searches_are_those_with_a_journal(tmp_path):
    output = Output(tmp_path)
    assert not list(output.searches())
    output.search_in("empty").path.mkdir()
    for name in ("second", "first"):
        output.search_in(name).path.mkdir()
        output.search_in(name).journal.touch()
    assert list(output.searches()) == [output.search_in("first"), output.search_in("second")]


@pytest.mark.parametrize(("name", "seed"), [("a.pt", "a_seed3.pt"), ("a.b.pt", "a.b_seed3.pt")])
def test_what_is_beside_a_network(name, seed):
    assert repetition(Path(name), 3) == Path(seed)
    assert training_folder(name) == Path(name.removesuffix(".pt"))


@pytest.mark.slow
def test_a_whole_run_leaves_nothing_else(tmp_path, monkeypatch):
    write_untrained(tmp_path)
    monkeypatch.chdir(tmp_path)
    file = next(tmp_path.glob("*.yml"))
    recipe = load_recipe(file)
    for command in (
        ["train", str(file)],
        ["search", str(file)],
        ["results", str(recipe.files.search.path), "--output", "best.json"],
        ["retrain", str(file), "--path", "best.json"],
        ["report", str(recipe.files.search.path)],
        ["baseline", str(file), "random", "-n", "1"],
    ):
        assert main(command) == 0, command
    output = recipe.files
    networks = [output.retrained, *output.baselines.glob("*.pt")]
    known = {
        *(getattr(output, name) for name, x in vars(Output).items() if isinstance(x, property)),
        *(training_folder(weights) for weights in [output.supernet, *networks]),
        output.search.path,
    }
    known |= {previous(file) for file in known if isinstance(file, Path)}
    locks = {x for x in output.folder.iterdir() if x.suffix == ".lock"}
    assert {x for x in output.folder.iterdir() if x not in known} <= locks
    inside = {output.search.journal, output.search.record, output.search.lock}
    inside.add(output.search.curves)
    assert set(output.search.path.iterdir()) == {*inside, output.search.report("html")}
    assert networks[1:]
    for weights in (output.supernet, output.retrained, networks[1]):
        assert training_curves(training_folder(weights)).is_file()
