"""The command line, run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nni_spos.cli import main
from nni_spos.costs.stored import load_costs
from nni_spos.path import load_path
from nni_spos.process.user_modules import import_user_module
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe

PUBLISHED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)
CHOICES = ("k3", "k5", "k7", "xcep")

RECIPE = """
output: runs
space: {name: shufflenet_small}
data: {name: digits}
supernet: {epochs: 1}
retrain: {epochs: 1}
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = {f"layer_{i + 1}": CHOICES[code] for i, code in enumerate(PUBLISHED)}
    file = tmp_path / "path.json"
    file.write_text(json.dumps(path))
    return file


@pytest.mark.slow
def test_profile_prints_the_published_figures(published, capsys):
    assert main(["profile", "shufflenet", "--path", str(published), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["path"] == {"flops": 322_918_720, "params": 3_558_464}
    assert content["cheapest"]["flops"] == 270_359_360
    assert content["dearest"]["flops"] == 398_609_216

    assert main(["profile", "shufflenet", "--path", str(published)]) == 0
    text = capsys.readouterr().out
    assert "322,918,720" in text
    assert "270,359,360" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_3": "k9"}, "label 'layer_3': 'k9' is not a choice"),
        ({"layer_21": "k3"}, "label 'layer_21' is not in the search space"),
        ({"layer_3": None}, "label 'layer_3': None is not a choice"),
    ],
)
def test_a_wrong_path_is_one_line_and_exit_code_2(published, capsys, change, message):
    published.write_text(json.dumps(json.loads(published.read_text()) | change))
    assert main(["profile", "shufflenet", "--path", str(published)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_an_unknown_space_names_the_nearest(capsys):
    assert main(["profile", "shuflenet"]) == 2
    assert "did you mean 'shufflenet'?" in capsys.readouterr().err


@pytest.mark.slow
def test_profile_of_a_recipe_has_its_space_its_images_and_its_latencies(tmp_path, capsys):
    file, path = tmp_path / "recipe.yml", tmp_path / "path.json"
    file.write_text(RECIPE)
    path.write_text(json.dumps({f"layer_{i}": "k3" for i in range(1, 9)}))
    assert main(["profile", str(file), "--path", str(path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["space"] == "shufflenet_small"
    assert content["input_shape"] == [1, 16, 16]
    costs = load_costs(load_recipe(file))[1]
    assert content["path"] == {name: x.price(load_path(path)) for name, x in costs.items()}
    assert content["cheapest"]["flops"] == 620_800
    assert content["dearest"]["flops"] == 968_960

    table = tmp_path / "cpu.json"
    quick = ["--paths", "2", "--threads", "1", "--output", str(table)]
    assert main(["latency", str(file), *quick]) == 0
    file.write_text(RECIPE + "latency: [cpu.json]\n")
    capsys.readouterr()
    assert main(["profile", str(file), "--path", str(path)]) == 0
    rows = [x for x in capsys.readouterr().out.splitlines() if " latency on cpu (ms) " in x]
    assert [row.split()[0] for row in rows] == ["path", "cheapest", "dearest"]

    assert main(["profile", str(file), "--path", "fbnet-a"]) == 2
    assert "a path of the space fbnet, not of shufflenet_small" in capsys.readouterr().err


def test_costs_are_what_the_tuner_loads(tmp_path, capsys):
    file = tmp_path / "recipe.yml"
    file.write_text(RECIPE)
    assert main(["costs", str(file)]) == 0
    assert (tmp_path / "runs" / "costs.json").is_file()
    space, costs = load_costs(load_recipe(file))
    assert space.size == 4**8
    assert costs["flops"].cheapest()[0] == 620_800  # 16x16 grey digits, ten classes
    assert costs["flops"].dearest()[0] == 968_960


def test_space_writes_what_nni_takes(tmp_path, capsys):
    file = tmp_path / "recipe.yml"
    file.write_text(RECIPE)
    assert main(["space", str(file), "--output", str(tmp_path / "space.json")]) == 0
    written = json.loads((tmp_path / "space.json").read_text())
    assert written["layer_8"] == {"_type": "choice", "_value": list(CHOICES)}
    assert main(["space", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == written


def test_results_of_nothing(tmp_path, capsys):
    assert main(["results", str(tmp_path)]) == 2
    assert "has no results yet" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("DONE", 0), ("STOPPED", 2)])
def test_a_search_that_somebody_stopped_is_no_success(monkeypatch, tmp_path, capsys, status, code):
    from nni_spos.experiment import start as module

    found = module.StartResult("aBcDe", status, tmp_path)
    monkeypatch.setattr(module, "resume", lambda *arguments: found)
    monkeypatch.setattr(module, "load_results", lambda folder: Found())
    assert main(["resume", "aBcDe"]) == code
    output, errors = capsys.readouterr()
    assert output.splitlines() == [f"experiment aBcDe: {status}", "the table"]
    assert ("To go on: nni-spos resume aBcDe" in errors) == (status == "STOPPED")


class Found:
    """Stands for the results of a search."""

    folder = SearchFolder(Path("of a search that left no record"))
    file = folder.journal
    candidates = ()
    constraints = ()
    objective = "top1"

    def format_table(self, top):
        return "the table"

    def format_front(self):
        return ""

    def format_failures(self):
        return ""


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    tmp_path, monkeypatch, capsys, option
):
    monkeypatch.setattr("nni_spos.cli.studies.load_recipe", lambda file: pytest.fail("began"))
    (tmp_path / "file").write_text("")
    command = ["correlate", "recipe.yml", "--retrain", "4", option]
    assert main([*command, str(tmp_path)]) == 2
    assert main([*command, str(tmp_path / "file" / "study")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("IsADirectoryError: ")
    assert first.endswith(f"cannot be written: Is a directory: '{tmp_path}'")
    assert second.startswith("NotADirectoryError: ")
    assert "file/study" in second
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("is_users", [True, False])
def test_an_error_of_a_users_code_is_one_line_and_one_of_ours_is_not(
    is_users, tmp_path, monkeypatch, capsys
):
    (tmp_path / "own_code.py").write_text("def fail():\n    raise KeyError('x')\n")
    module = import_user_module("own_code", tmp_path)

    def ours(options):
        raise KeyError("x")

    fail = (lambda options: module.fail()) if is_users else ours
    monkeypatch.setattr("nni_spos.cli.spaces.space", fail)
    if not is_users:
        with pytest.raises(KeyError):
            main(["space", "recipe.yml"])
        return
    assert main(["space", "recipe.yml"]) == 2
    assert capsys.readouterr().err == "UserCodeError: KeyError: 'x' (own_code.py, line 2).\n"
