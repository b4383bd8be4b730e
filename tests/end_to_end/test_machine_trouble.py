"""Trouble of the machine in the middle of a search under NNI: it stops, is mended and goes on."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
import yaml
from waiting import wait_until

from nni_spos.errors import ExperimentError
from nni_spos.experiment.start import ManagerOptions, resume, start
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.results import load_results
from nni_spos.search.running import run_search
from nni_spos.supernet.training import ensure_supernet

pytestmark = pytest.mark.nni

SPACE = """
from pathlib import Path
import torch
from nni_spos.spaces import ShuffleNetV2Space

class Short(ShuffleNetV2Space):
    def forward(self, images):
        if Path({short!r}).exists():
            torch.empty(1 << 50)
        return super().forward(images)

class Noisy(ShuffleNetV2Space):
    def forward(self, images):
        return super().forward(torch.nn.functional.dropout(images, 0.2))
"""
BLOCKS = {
    "stem_channels": 4,
    "stem_stride": 1,
    "stage_repeats": [2, 2],
    "stage_channels": [8, 16],
    "last_channels": 16,
}


class Trouble:
    """A small search with a trained supernet, and what can come in its way.

    Parameters
    ----------
    study
        Where NNI runs it.
    output
        Its output folder.
    name
        Of its space.
    """

    def __init__(self, study, output: Path, name: str = "Short"):
        self.study, self.output = study, output
        self._short = study.folder / "short"
        self.file = study.folder / "recipe.yml"
        (study.folder / "own_space.py").write_text(SPACE.format(short=str(self._short)))
        content = {
            "output": str(output),
            "space": {"name": f"own_space:{name}", **BLOCKS},
            "data": {"name": "digits", "image_size": 8, "num_train": 200, "num_validation": 100},
            "supernet": {"epochs": 1, "batch_size": 50},
            "retrain": {"epochs": 1},
            "evaluation": {"recalibration_images": 100, "batch_size": 50, "cache": False},
            "search": {"population_size": 4, "num_generations": 4, "top_k": 2},
        }
        self.file.write_text(yaml.safe_dump(content))
        self.recipe = load_recipe(self.file)
        ensure_supernet(self.recipe)
        space = {f"layer_{i}": {"_type": "choice", "_value": ["k3", "k5", "k7", "xcep"]}
                 for i in range(1, 5)}  # fmt: skip
        (study.folder / "space.json").write_text(json.dumps(space))
        study.write_config(f"{sys.executable} -m nni_spos.cli trial recipe.yml")

    def end_worker(self) -> None:
        for process in self.study.processes("nni_spos.worker.service"):
            process.kill()

    def begin_little_memory(self) -> None:
        self._short.touch()

    def mend_little_memory(self) -> None:
        self._short.unlink()

    def begin_silence(self) -> None:
        self.file.rename(self.file.with_suffix(".aside"))
        self.file.write_text("space: [")

    def mend_silence(self) -> None:
        self.file.with_suffix(".aside").rename(self.file)


def stopped(study, begin) -> str:
    """Start the search, let trouble begin in its middle, and return why it stopped."""

    def break_it():
        wait_until(lambda: study.num_outcomes() >= 2)
        begin()

    breaker = threading.Thread(target=break_it)
    breaker.start()
    with pytest.raises(ExperimentError) as raised:
        start(study.config, ManagerOptions(port=study.port), report=lambda line: None)
    breaker.join()
    assert study.processes() == []
    return str(raised.value)


def goes_on(study, trouble, said: str) -> None:
    """The search said how to go on; mended, it has the results of an undisturbed one."""
    experiment_id = said.split()[1]
    assert f"nni-spos resume {experiment_id}" in said
    assert {x.state.value for x in load_results(experiment_id).candidates} == {"done"}
    result = resume(experiment_id, ManagerOptions(port=study.port), report=lambda line: None)
    assert result.status == "DONE"
    assert study.processes() == []
    expected, found = run_search(trouble.recipe, progress=False), load_results(experiment_id)
    assert [(c.path, c.state) for c in found.candidates] == [
        (c.path, c.state) for c in expected.candidates
    ]
    assert found.best.path == expected.best.path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("little_memory", "there is too little memory for the path '"),
        ("silence", "without a result or a reason; its last words: RecipeError: "),
    ],
)
def test_trouble_stops_a_search_until_it_is_mended(study, one_thread, name, reason):
    trouble = Trouble(study, study.folder / "output")
    said = stopped(study, getattr(trouble, f"begin_{name}"))
    assert reason in said
    getattr(trouble, f"mend_{name}")()
    goes_on(study, trouble, said)


def test_a_full_disk_stops_a_search_until_there_is_room(study, one_thread, small_disk):
    trouble = Trouble(study, small_disk.root / "output")

    def fill():
        small_disk.fill()
        trouble.end_worker()

    said = stopped(study, fill)
    assert "No space left on device" in said
    small_disk.make_room()
    goes_on(study, trouble, said)


def test_a_users_command_that_always_fails_is_named(study):
    study.write()
    config = yaml.safe_load(study.config.read_text())
    config["trialCommand"] = "ls /nowhere"
    study.config.write_text(yaml.safe_dump(config))
    with pytest.raises(ExperimentError, match=r"all 8 candidates failed") as raised:
        start(study.config, ManagerOptions(port=study.port), report=lambda line: None)
    assert "No trial of the command 'ls /nowhere' gave a result" in str(raised.value)
    assert study.processes() == []


def test_noise_in_a_worker_is_told_by_the_command(study, one_thread):
    Trouble(study, study.folder / "output", "Noisy")
    lines = []
    result = start(study.config, ManagerOptions(port=study.port), report=lines.append)
    assert result.status == "DONE"
    noise = [line for line in lines if "it gives other outputs each time" in line]
    assert len(noise) == 1
    assert noise[0].startswith("warning: the paths of this network are scored one by one: ")
