"""The Python code of the README runs as it is, apart from the number of epochs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nni_spos.recipe import SupernetSettings
from nni_spos.settings import read_settings
from nni_spos.spaces import SPACES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

NETWORK = """
import torch
from nni_spos.network import SpaceArguments, TrainedNetwork, save_network
from nni_spos.supernet import extract_subnet
made_from = SpaceArguments("shufflenet_small", {}, 10, 1, 16)
path = {f"layer_{i}": "k3" for i in range(1, 9)}
network = extract_subnet(made_from.build(), path)
save_network("runs/digits/retrained.pt", TrainedNetwork(network, path, {}, {}, {}, made_from))
images = torch.zeros(2, 1, 16, 16)
"""

OWN_NETWORK = """
import sys
sys.path.insert(0, "examples/own_model")
from my_model import MySpace
made_from = SpaceArguments("my_model:MySpace", {}, 10, 1, 16)
path = {"width": 8, "block_1": "k3", "bits_1": "2w4a", "block_2": "skip", "bits_2": "8w8a"}
network = extract_subnet(MySpace(), path)
save_network("runs/own_model/retrained.pt", TrainedNetwork(network, path, {}, {}, {}, made_from))
"""


def test_there_are_the_blocks_that_are_tested_here():
    assert len(BLOCKS) == 5
    assert "load_network" in BLOCKS[0]
    assert "NasExperiment" in BLOCKS[1]
    assert "my_accuracy" in BLOCKS[2]
    assert "class MySpace" in BLOCKS[3]
    assert "MySpace()" in BLOCKS[4]
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line.strip()]) <= 15


def test_the_own_model_is_that_of_the_example():
    module = (ROOT / "examples" / "own_model" / "my_model.py").read_text(encoding="utf-8")
    lines = iter(module.splitlines())
    for line in BLOCKS[3].splitlines():
        assert line in lines, f"not in my_model.py, or not in this order: {line}"


def test_the_own_models_recipe_is_that_of_the_example():
    text, _ = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    recipe = (ROOT / "examples" / "own_model" / "recipe.yml").read_text(encoding="utf-8")
    shown, whole = yaml.safe_load(text), yaml.safe_load(recipe)
    assert list(shown) == ["space", "search"]
    for section, values in shown.items():
        assert values.items() <= whole[section].items()


def test_the_settings_of_several_gpus_are_those_of_a_recipe():
    _, text = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    settings = read_settings(SupernetSettings, yaml.safe_load(text)["supernet"], "README.md")
    assert (settings.devices, settings.num_nodes) == (8, 1)
    section = README.partition("## Several GPUs")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+)(?::[^`]*)?`", section))
    assert {"devices", "num_nodes", "strategy", "sync_batchnorm", "batch_size"} <= named


def test_the_table_of_spaces_has_all_of_them():
    (table,) = re.findall(r"as names in recipes:\n\n(.*?)\n\n", README, re.DOTALL)
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == list(SPACES)


@pytest.mark.slow
def test_they_run(tmp_path):
    assert "epochs=60" in BLOCKS[1]
    program = [
        NETWORK,
        BLOCKS[0],
        "assert logits.shape == (2, 10)\n",
        BLOCKS[1].replace("epochs=60", "epochs=1"),
        "my_accuracy = lambda path: len(set(path.values()))\n",
        BLOCKS[2],
        "print('best', search.top(1)[0].metrics)\n",
        OWN_NETWORK.replace("examples", str(ROOT / "examples")),
        BLOCKS[4],
        "assert trained.network(images).shape == (2, 10)\n",
    ]
    (tmp_path / "program.py").write_text("".join(program))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "best {'top1': 4}" in done.stdout
    assert re.search(r"^\[\{'layer_1': '(k\d|xcep)'", done.stdout, re.MULTILINE)
