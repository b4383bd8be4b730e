"""What commands import: PyTorch takes ten seconds, so that what needs it not must do without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_report import write_run

from nni_spos.cli import main
from nni_spos.costs import stored
from nni_spos.supernet import rehearsal

ROOT = Path(__file__).parents[1]

HEAVY = ("torch", "torchvision", "nni", "pytorch_lightning", "sklearn", "scipy", "matplotlib")
PROGRAM = """
import json, sys
from nni_spos.cli import main
try:
    code = main(sys.argv[2:])
except SystemExit as end:
    code = end.code
with open(sys.argv[1], "w") as file:
    json.dump([code, sorted({name.partition(".")[0] for name in sys.modules})], file)
"""

RECIPE = """
output: runs
space: {name: shufflenet_small}
data: {name: digits}
supernet: {epochs: 1}
retrain: {epochs: 1}
"""
WRONG = RECIPE.replace("supernet: {epochs: 1}", "supernet: {epochs: -1}")


@pytest.fixture
def run(tmp_path):
    """Run a command in a process of its own; return exit code, heavy imports and the process."""

    def _run(*arguments: object):
        found = tmp_path / "imports.json"
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(found), *map(str, arguments)]
        done = subprocess.run(command, text=True, cwd=tmp_path, capture_output=True)
        code, imported = json.loads(found.read_text())
        return code, [name for name in HEAVY if name in imported], done

    return _run


@pytest.mark.spawn
def test_help_imports_nothing_heavy(run):
    for arguments in (["--help"], ["profile", "--help"], ["train", "--help"], ["report", "--help"]):
        code, heavy, done = run(*arguments)
        assert (code, heavy) == (0, []), arguments
        assert done.stdout.startswith("usage: nni-spos")
        assert done.stderr == ""


@pytest.mark.spawn
def test_what_was_found_is_shown_without_pytorch(run, tmp_path):
    """Charts need matplotlib, and only they do."""
    found = write_run(tmp_path / "run")
    for arguments, needed in [
        (["results", found.folder], []),
        (["report", found.folder, "--format", "md"], ["matplotlib"]),
        (["prior", found.recipe], []),
        (["experiment", "--list"], []),
    ]:
        code, heavy, done = run(*arguments)
        assert (code, heavy) == (0, needed), arguments
        assert done.stdout


@pytest.mark.spawn
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "RECIPE"],
        ["retrain", "RECIPE", "--path", "path.json"],
        ["search", "RECIPE"],
        ["profile", "RECIPE"],
        ["latency", "RECIPE", "--output", "latency.json"],
        ["correlate", "RECIPE", "--retrain", "2"],
        ["baseline", "RECIPE", "random"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_wrong_recipe_is_refused_without_pytorch(run, tmp_path, arguments):
    (tmp_path / "recipe.yml").write_text(WRONG)
    code, heavy, done = run(*("recipe.yml" if x == "RECIPE" else x for x in arguments))
    assert (code, heavy, done.stdout) == (2, [], "")
    assert done.stderr.startswith("RecipeError: recipe.yml: supernet.epochs")


@pytest.mark.spawn
def test_the_costs_of_a_space_need_no_scikit_learn(run, tmp_path):
    (tmp_path / "recipe.yml").write_text(RECIPE)
    code, heavy, done = run("profile", "recipe.yml", "--json")
    assert (code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["space"] == "shufflenet_small"
    assert "torch" in heavy
    assert "sklearn" not in heavy


@pytest.mark.slow
def test_check_imports_pytorch_in_one_process(tmp_path, monkeypatch, capsys):
    """It trains and scores for a step: the costs that it needs before are built there too."""
    for folder in ("examples", "search_spaces"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(stored, "subprocess", None)  # which would start another one
    rehearsed = []
    rehearse = rehearsal.rehearse
    monkeypatch.setattr(rehearsal, "rehearse", lambda x: rehearsed.append(rehearse(x)))
    assert main(["check", str(tmp_path / "examples" / "spos.yml")]) == 0
    output, errors = capsys.readouterr()
    assert (output.count("\n"), errors) == (1, "")
    assert output.startswith("spos.yml: valid")
    assert (tmp_path / "runs" / "digits" / "costs.json").is_file()
    assert len(rehearsed) == 1
