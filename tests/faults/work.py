"""A folder with a home of its own, the commands that run in it, and the processes that can die."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import yaml
from PIL import Image
from sklearn.datasets import load_digits

from nni_spos.cli import main as command_line

TARGETS = ("trainer", "search", "trial", "worker", "tuner", "manager")
PATIENCE_S = 240
MAX_AGAIN = 10
FIRST_GUESS_S = 10.0
FORK = multiprocessing.get_context("fork")
RECIPE = {
    "space": {
        "name": "shufflenet",
        "stem_channels": 4,
        "stem_stride": 1,
        "stage_repeats": [2, 2],
        "stage_channels": [8, 16],
        "last_channels": 16,
    },
    "data": {
        "name": "image_folder",
        "root": "images",
        "image_size": 8,
        "augmentation": "none",
        "num_validation": 100,
    },
    "supernet": {"epochs": 8, "batch_size": 20, "learning_rate": 0.1, "keep_checkpoints": 3},
    "retrain": {"epochs": 1},
    "evaluation": {"recalibration_images": 100, "batch_size": 50},
    "search": {"population_size": 6, "num_generations": 4, "top_k": 3, "seed": 1},
}


class Work:
    """A folder with a home of its own, the runs in it, and what was seen.

    Parameters
    ----------
    folder
        Empty, or of an earlier call, whose undisturbed runs are used again.
    seed
        Of the moments and the victims.
    """

    def __init__(self, folder: Path, seed: int):
        self.folder = folder.resolve()
        self.random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.problems: list[str] = []
        self.finished: dict[tuple, float] = {}
        self.num_lost = self.num_twice = self.num_searches = self.num_trainings = 0
        self.environment = {**os.environ, "HOME": str(self.folder), "PYTHONWARNINGS": "ignore"}
        if not (self.folder / "images").exists():
            write_images(self.folder / "images")

    def write(self, name: str, **supernet: object) -> Path:
        """Write a recipe with an output folder of its own, and return it."""
        file = self.folder / f"{name}.yml"
        content = {"output": f"{name}/runs", **RECIPE}
        content["supernet"] = {**content["supernet"], **supernet}
        file.write_text(yaml.safe_dump(content))
        return file

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """Begin a command of nni-spos."""
        log = (self.folder / "commands.log").open("a")
        return subprocess.Popen(
            [sys.executable, "-m", "nni_spos.cli", *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            text=True,
        )

    def fork(self, *arguments: object) -> BaseProcess:
        """Begin a command of nni-spos in a fork."""
        words = [str(word) for word in arguments]
        process = FORK.Process(target=run_forked, args=(words, self.folder / "commands.log"))
        process.start()
        return process

    def run(self, *arguments: object) -> float:
        """Run a command to its end; return how long it took."""
        begin = time.monotonic()
        process = self.fork(*arguments)
        process.join(PATIENCE_S)
        if process.exitcode != 0:
            process.kill()
            code = process.exitcode
            raise RuntimeError(f"{arguments}: exit code {code}, see {self.folder}/commands.log")
        return time.monotonic() - begin

    def note(self, problem: str) -> None:
        """Remember what must not be."""
        self.problems.append(problem)
        print(f"PROBLEM: {problem}", flush=True)

    def killed(self, target: str) -> None:
        """Count a kill."""
        self.kills[target] += 1
        print(f"{time.strftime('%H:%M:%S')} killed: {target}, {self.kills.total()}", flush=True)

    def processes(self, target: str) -> list[psutil.Process]:
        """Return the running processes of a kind, known by their home and command."""
        words = {
            "trial": "nni_spos.cli trial",
            "worker": "nni_spos.worker.service",
            "tuner": "--exp_params",
            "manager": "main.js",
            "": "",
        }[target]
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                is_ours = process.environ().get("HOME") == str(self.folder)
                is_running = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            is_shell = command.startswith(("/bin/bash", "/bin/sh"))
            if is_ours and is_running and words in command and not is_shell:
                found.append(process)
        return found


def write_images(root: Path) -> None:
    """Write handwritten digits as a folder of images: 300 to train with and 20 to test."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = root / ("train" if number < 300 else "val") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).save(folder / f"{number}.png")
        if number == 319:
            break


def run_forked(words: list[str], log: Path) -> None:
    """Run a command of nni-spos in this process, with its output in a file."""
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.exit(command_line(words))
