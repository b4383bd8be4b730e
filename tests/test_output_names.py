"""Names of files to write are checked before a command begins, perhaps for hours."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nni_spos.cli import main
from nni_spos.evolution import Candidate, Journal, State

RECIPE = {
    "output": "runs",
    "space": {"name": "shufflenet_small", "stage_repeats": [1], "stage_channels": [8]},
    "data": {"name": "digits", "num_train": 40, "num_validation": 20},
    "supernet": {"epochs": 1},
    "retrain": {"epochs": 1},
}


RETRAIN = ["retrain", "recipe.yml", "--path", "path.json", "--output"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "path.json").write_text('{"layer_1": "k3"}')
    (tmp_path / "link.yml").symlink_to("recipe.yml")
    (tmp_path / "net_seed1.pt").mkdir()
    journal = Journal("run/search.jsonl", {"search": {"objective": "top1"}})
    journal.append(Candidate({"a": "k3"}, 0, 0, {"flops": 1}, State.DONE, {"top1": 50.0}))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["results", "run", "--output", "caf\udce9.json"], "is not UTF-8"),
        (["results", "caf\udce9"], "is not UTF-8"),
        (["space", "recipe.yml", "--output", "recipe.yml"], "is the same file as the recipe"),
        (["space", "recipe.yml", "--output", "./link.yml"], "is the same file as the recipe"),
        (
            ["latency", "shufflenet", "--output", "a.json", "--plot", "a.json"],
            "is the same file as the plot",
        ),
        ([*RETRAIN, "net"], "needs a suffix"),
        (
            [*RETRAIN, "net.pt", "--repeats", "2"],
            "net_seed1.pt",
        ),
        ([*RETRAIN, "path.json"], "the same file as the path"),
    ],
)  # fmt: skip
def test_refusals(folder, capsys, arguments, words):
    before = sorted(folder.rglob("*"))
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert line.isprintable()
    assert sorted(folder.rglob("*")) == before
    assert (folder / "recipe.yml").read_text() == yaml.safe_dump(RECIPE)


def test_a_name_of_its_own(folder, capsys):
    assert main(["results", "run", "--output", "café.json"]) == 0
    assert Path("café.json").read_text().split() == ["{", '"a":', '"k3"', "}"]
