"""The Python code of the README runs as it is, apart from the number of epochs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
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


def test_there_are_the_blocks_that_are_tested_here():
    assert len(BLOCKS) == 3
    assert "load_network" in BLOCKS[0]
    assert "NasExperiment" in BLOCKS[1]
    assert "my_accuracy" in BLOCKS[2]
    lines = [line for line in BLOCKS[1].splitlines() if line.strip()]
    assert len(lines) <= 15


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
