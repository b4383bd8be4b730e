"""A small search that the real NNI runs in a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import psutil
import yaml
from fake_trial import fate, score

from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs.stored import load_costs, save_costs
from nni_spos.evolution import EvolutionSearch, Signal
from nni_spos.experiment.manager import Manager
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.search.building import build_search

ROOT = Path(__file__).parents[2]
FAKE_TRIAL = Path(__file__).with_name("fake_trial.py")
SPACE = PathSpace({f"layer_{i}": ["k3", "k5", "k7", "xcep"] for i in range(1, 6)})


class Study:
    """A recipe, an NNI configuration and what their experiment leaves behind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.log = folder / "evaluated.jsonl"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.manager = Manager(self.port)
        self.config = folder / "spos.yml"

    def copy_examples(self, **changes) -> Recipe:
        """Copy the examples, with few digits and other changes of digits.yml; return its recipe."""
        for folder in ("examples", "search_spaces"):
            shutil.copytree(ROOT / folder, self.folder / folder)
        file = self.folder / "examples" / "recipes" / "digits.yml"
        content = yaml.safe_load(file.read_text())
        for section, values in {
            "data": {"num_train": 256, "num_validation": 100},
            **changes,
        }.items():
            content[section].update(values)
        file.write_text(yaml.safe_dump(content))
        return load_recipe(file)

    def write(self, *, seconds=0.0, failures=True, concurrency=4, class_args=None, **search):
        """Write a small search whose trials are those of `fake_trial`."""
        tables = {"flops": (10, [5, 10, 15, 8]), "params": (7, [1, 2, 3, 4])}
        costs = {
            metric: CostTable(
                metric, SPACE, constant, [Factor((label,), np.array(table)) for label in SPACE]
            )
            for metric, (constant, table) in tables.items()
        }
        command = f"{sys.executable} {FAKE_TRIAL} {self.log} {seconds}"
        command += "" if failures else " --no-failures"
        search = {"constraints": ["flops <= 60"], "population_size": 8, "num_generations": 3,
                  "top_k": 4, "seed": 1, **search}  # fmt: skip
        self.write_files(SPACE, costs, command, search, concurrency, class_args or {})

    def write_files(self, space, costs, command, search, concurrency, class_args):
        """Write recipe, cost tables, search space and configuration."""
        recipe = {
            "output": "output",
            "space": {"name": "shufflenet"},
            "data": {"name": "digits"},
            "supernet": {"epochs": 1},
            "retrain": {"epochs": 1},
            "search": search,
        }
        (self.folder / "recipe.yml").write_text(yaml.safe_dump(recipe))
        save_costs(load_recipe(self.folder / "recipe.yml"), space, costs)
        (self.folder / "space.json").write_text(json.dumps(space.to_search_space()))
        self.write_config(command, concurrency, class_args)

    def write_config(self, command, concurrency=2, class_args=None):
        """Write the configuration of the recipe and the search space that lie beside it."""
        config = {
            "experimentName": "small",
            "searchSpaceFile": "space.json",
            "trialCommand": command,
            "trialCodeDirectory": ".",
            "trialConcurrency": concurrency,
            "experimentWorkingDirectory": "experiments",
            "tuner": {
                "codeDirectory": ".",
                "className": "nni_spos.experiment.tuner.EvolutionTuner",
                "classArgs": {"recipe": "recipe.yml", **(class_args or {})},
            },
            "trainingService": {"platform": "local"},
        }
        self.config.write_text(yaml.safe_dump(config))

    def reference(self, failures=True) -> EvolutionSearch:
        """The same search in this process, told the same outcomes."""
        recipe = load_recipe(self.folder / "recipe.yml")
        search = build_search(recipe.search, *load_costs(recipe))
        while not isinstance(path := search.ask(), Signal):
            if fate(path, failures) == "scores":
                search.tell(path, {"top1": score(path)})
            else:
                search.tell_failure(path, "planned")
        assert path is Signal.FINISHED
        return search

    def evaluated(self) -> list[dict]:
        """Lines of completed evaluations: trial job and path."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def journal(self) -> Path | None:
        return next(self.folder.glob("experiments/*/checkpoint/search.jsonl"), None)

    def num_outcomes(self) -> int:
        journal = self.journal()
        return journal.read_text().count("\n") - 1 if journal else 0

    def processes(self, argument: str = "") -> list[psutil.Process]:
        """Running processes of this study, known by their home in it; those with an argument."""
        found = []
        for process in psutil.process_iter():
            try:
                home = Path(process.environ().get("HOME", "/"))
                is_ours = home.is_relative_to(self.folder)
                is_running = process.status() != psutil.STATUS_ZOMBIE
                has_argument = not argument or argument in " ".join(process.cmdline())
            except psutil.Error:
                continue
            if is_ours and is_running and has_argument and process.pid != os.getpid():
                found.append(process)
        return found

    def end(self) -> None:
        """End what a failed test left; only processes whose home is in this study's folder."""
        for process in self.processes():
            process.kill()
