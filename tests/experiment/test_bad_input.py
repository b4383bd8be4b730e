"""A tour of wrong input at the command line: one clear line, exit code 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from trained_recipes import change_recipe

from nni_spos.cli import main
from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.supernet import save_supernet

ROOT = Path(__file__).parents[2]
PATH = {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"}

LIST_SPACE = """
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        self.body = LayerChoice([nn.Conv2d(3, 4, k, padding=k // 2) for k in (1, 3, 5, 7, 9)],
                                label="kernel")

    def forward(self, x):
        return self.body(x).mean((2, 3))
"""


def write_path(**changes) -> str:
    path = {label: choice for label, choice in {**PATH, **changes}.items() if choice is not None}
    Path("path.json").write_text(json.dumps(path))
    return "path.json"


def test_recipe_key(refused):
    change_recipe("supernet", lerning_rate=0.1)
    line = refused("train", "recipe.yml")
    assert "recipe.yml: supernet: unknown key 'lerning_rate'; did you mean 'learning_rate'?" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_2": "k9"}, "label 'layer_2': 'k9' is not a choice. Choices: k3, k5, k7, xcep"),
        ({"layer_2": None}, "layer_2"),
        ({"layer_4": "k3"}, "layer_4"),
    ],
)
def test_path(refused, changes, words):
    file = write_path(**changes)
    line = refused("retrain", "recipe.yml", "--path", file)
    assert line.startswith("PathError: ")
    assert words in line


def test_text_instead_of_a_number(folder, refused, capsys, monkeypatch):
    (folder / "my_spaces.py").write_text(LIST_SPACE)
    monkeypatch.syspath_prepend(str(folder))
    Path("path.json").write_text('{"kernel": "4"}')
    main(["profile", "my_spaces:Space"])  # Python caches the module
    capsys.readouterr()
    line = refused("profile", "my_spaces:Space", "--path", "path.json")
    assert "label 'kernel': '4' is not a choice" in line
    assert "0, 1, 2, 3, 4" in line
    Path("path.json").write_text('{"kernel": 4}')
    assert main(["profile", "my_spaces:Space", "--path", "path.json"]) == 0


def test_infeasible_constraint(refused):
    change_recipe("search", constraints=["flops <= 10"])
    line = refused("search", "recipe.yml")
    assert line.startswith("InfeasibleError: ")
    assert "flops" in line
    assert "cheapest" in line or "from" in line


def test_missing_checkpoint(folder, refused):
    (folder / "output" / "supernet.pt").unlink()
    line = refused("search", "recipe.yml")
    assert "supernet.pt: no such checkpoint. Train the supernet first: nni-spos train" in line


def test_checkpoint_of_another_space(folder, refused):
    save_supernet(folder / "output" / "supernet.pt", ShuffleNetV2Space.small(), preprocessing())
    line = refused("search", "recipe.yml")
    assert "the checkpoint belongs to another search space" in line
    assert "supernet.pt" in line


def test_checkpoint_of_other_images(refused):
    change_recipe("data", num_validation=61)
    line = refused("search", "recipe.yml")
    assert line.startswith("CheckpointError: ")
    assert "num_validation" in line


def test_truncated_checkpoint(folder, refused):
    file = folder / "output" / "supernet.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "supernet.pt: cannot be loaded safely" in refused("search", "recipe.yml")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_checkpoint_that_would_run_code(folder, refused):
    torch.save({"supernet_version": 1, "weights": Bomb()}, folder / "output" / "supernet.pt")
    assert "supernet.pt: cannot be loaded safely" in refused("search", "recipe.yml")
    assert not (folder / "ran").exists()


def test_absent_data(refused):
    change_recipe("data", name="cifar10", root="nowhere", num_train=None)
    for command in ("train", "search"):
        line = refused(command, "recipe.yml", *(["--overwrite"] if command == "train" else []))
        assert line.startswith("DataError: cifar10: ")
        assert "nowhere" in line
        assert "download: true" in line


@pytest.mark.slow
def test_port_in_use(folder, refused, capsys):
    for name in ("examples", "search_spaces"):
        shutil.copytree(ROOT / name, folder / name)
    # The costs of the recipe are built by the first check.
    assert main(["check", "examples/spos.yml"]) == 0
    capsys.readouterr()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        line = refused("start", "examples/spos.yml", "--port", str(port))
    assert f"port {port} is in use" in line
    assert "--port" in line


def preprocessing() -> dict:
    return torch.load("output/supernet.pt", weights_only=True)["preprocessing"]
