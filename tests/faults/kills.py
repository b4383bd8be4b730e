"""Disturb a training and searches at random moments; what came of it is printed.

``python tests/faults/kills.py --kills 50`` kills the trainer, a search in one process, and under
the real nnictl trials, workers, tuners and managers. In between befall the searches under nnictl
what `troubles` has, where root may do that. What was cut off goes on by the command that a user
would give, and in the end is compared with the same run that nobody disturbed.

Trainers and searches are forks of this process, which has imported PyTorch: kills before that
would prove nothing. Under nnictl every process is started as a user's is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from troubles import NEED_A_WORKER, TROUBLES, small_disk
from work import FIRST_GUESS_S, MAX_AGAIN, PATIENCE_S, RECIPE, TARGETS, Work

from nni_spos.errors import SposError
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.search.results import Results, load_results
from nni_spos.supernet import load_supernet

MAY_MOUNT = hasattr(os, "geteuid") and os.geteuid() == 0
ALL = (*TARGETS, *TROUBLES)
DEFAULT = ALL if MAY_MOUNT else TARGETS


def kill_command(
    work: Work, target: str, count: int, check: Callable[[], None], *arguments: object
) -> None:
    """Kill a command at moments spread evenly over the time that it takes, then let it end.

    Whenever it ends, `check` compares what it made with what an undisturbed one does.
    """
    recipe = load_recipe(str(arguments[1]))
    begin_anew(recipe, target)
    seconds, is_whole = FIRST_GUESS_S, True
    while work.kills[target] < count:
        begin = time.monotonic()
        process = work.fork(*arguments)
        process.join(work.random.uniform(0, seconds))
        if process.exitcode is None:
            process.kill()
            process.join()
            work.killed(target)
            is_whole = False
        elif process.exitcode:
            work.note(f"{target}: exit code {process.exitcode}")
        else:  # it was done: there is nothing left to kill
            if is_whole:
                seconds = time.monotonic() - begin
            check()
            begin_anew(recipe, target)
            is_whole = True
    work.run(*arguments)
    check()


def begin_anew(recipe: Recipe, target: str) -> None:
    """Remove what a training or a search has reached."""
    if target == "trainer":
        shutil.rmtree(recipe.output, ignore_errors=True)
    else:
        shutil.rmtree(recipe.output / "search", ignore_errors=True)
        shutil.rmtree(recipe.output / "scores", ignore_errors=True)


def kill_trainer(work: Work, count: int) -> None:
    """Kill a training; its weights must be those of an undisturbed one, bit for bit."""
    whole, cut = work.write("whole"), work.write("cut")
    work.run("train", whole, "--continue")

    def check() -> None:
        work.num_trainings += 1
        one, other = (load_supernet(load_recipe(x).checkpoint).weights for x in (whole, cut))
        if any(not torch.equal(value, other[name]) for name, value in one.items()):
            work.note("the weights are others than those of an undisturbed training")
        if left := list((work.folder / "cut").rglob("*.ckpt.*")):
            work.note(f"files of killed writers are left: {left}")

    kill_command(work, "trainer", count, check, "train", cut, "--continue")


def kill_search(work: Work, count: int) -> Results:
    """Kill a search in one process; return the undisturbed one."""
    work.run("search", work.folder / "whole.yml")
    reference = load_results(work.folder / "whole/runs/search")
    output = load_recipe(work.folder / "cut.yml").output

    def check() -> None:
        compare(work, output / "search", output, reference)

    kill_command(work, "search", count, check, "search", work.folder / "cut.yml")
    return reference


def compare(work: Work, folder: Path, output: Path, reference: Results) -> None:
    """Compare a finished search with the undisturbed one; its scores are in `output`."""
    found = load_results(folder)
    work.num_searches += 1
    expected = [(c.number, c.path, c.state, c.metrics.get("top1")) for c in reference.candidates]
    if [(c.number, c.path, c.state, c.metrics.get("top1")) for c in found.candidates] != expected:
        reasons = [c.reason for c in found.candidates if c.reason]
        work.note(f"{folder}: other candidates than those of the undisturbed search; {reasons}")
    if found.best.path != reference.best.path:
        work.note(f"{folder}: another winner")
    final = {key(c.path): c.metrics.get("top1") for c in found.candidates}
    lost = [path for path, top1 in work.finished.items() if final.get(path) != top1]
    work.num_lost += len(lost)
    work.finished.clear()
    records = [json.loads(line)["path"] for line in found.file.read_text().splitlines()[1:]]
    scored = [
        json.loads(line)["path"]
        for file in (output / "scores").glob("*.jsonl")
        for line in file.read_text().splitlines()
        if line
    ]
    for paths in (records, scored):
        work.num_twice += sum(number - 1 for number in Counter(map(key, paths)).values())


def key(path: dict) -> tuple:
    """Return a path as something to look up."""
    return tuple(path.items())


class Experiment:
    """A search under nnictl that is begun, and gone on with whenever it was cut off.

    Its OUTPUT is a file system of its own if root may mount one.
    """

    def __init__(self, work: Work, name: str, stack: contextlib.ExitStack):
        self.work = work
        recipe = work.write(name)
        self.output = load_recipe(recipe).output
        shutil.rmtree(work.folder / name, ignore_errors=True)
        self.output.mkdir(parents=True)
        if MAY_MOUNT:
            stack.enter_context(small_disk(self.output))
        shutil.copy(work.folder / "cut/runs/supernet.pt", self.output)
        shutil.copy(work.folder / "cut/runs/costs.json", self.output)
        work.run("space", recipe, "--output", work.folder / "space.json")
        self.config = work.folder / f"{name}_nni.yml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "searchSpaceFile": "space.json",
                    "trialCommand": f"{sys.executable} -m nni_spos.cli trial {recipe.name}",
                    "trialCodeDirectory": ".",
                    "trialConcurrency": 2,
                    "experimentWorkingDirectory": f"{name}/experiments",
                    "tuner": {
                        "codeDirectory": ".",
                        "className": "nni_spos.experiment.tuner.EvolutionTuner",
                        "classArgs": {"recipe": recipe.name},
                    },
                    "trainingService": {"platform": "local"},
                }
            )
        )
        self.root = work.folder / name / "experiments"
        self.num_again = 0
        self.command = self._begin("start", self.config)

    def _begin(self, *arguments: object) -> subprocess.Popen[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return self.work.begin(*arguments, "--port", port)

    @property
    def folder(self) -> Path | None:
        """Of the experiment, once it has begun."""
        journals = self.root.glob("*/checkpoint/search.jsonl")
        return next((x.resolve().parents[1] for x in journals), None)

    def results(self) -> Results | None:
        """What is recorded so far."""
        try:
            return load_results(self.folder) if self.folder else None
        except SposError:
            return None

    @property
    def num_recorded(self) -> int:
        """Number of outcomes so far."""
        found = self.results()
        return len(found.candidates) if found else 0

    @property
    def is_over(self) -> bool:
        """Whether all candidates have an outcome and the command has ended."""
        total = RECIPE["search"]["population_size"] * RECIPE["search"]["num_generations"]
        return self.command.poll() is not None and self.num_recorded >= total

    def kill(self, target: str) -> bool:
        """Kill a process of a kind, if there is one now; then wait until it goes on."""
        victims = self.work.processes(target)
        if not victims:
            return False
        self._remember()
        self.work.random.choice(victims).kill()
        self.work.killed(target)
        if target in ("tuner", "manager"):
            self.go_on()
        self.wait(self.num_recorded)
        return True

    def suffer(self, target: str) -> bool:
        """Let a trouble befall the search, if it can now; then wait until it goes on."""
        if target in NEED_A_WORKER and not self.work.processes("worker"):
            return False
        self._remember()
        self.work.killed(target)
        with TROUBLES[target](self):
            pass
        if self.command.poll() is not None:
            self.go_on()
        self.wait(self.num_recorded)
        return True

    def _remember(self) -> None:
        """Note what is known now and may not be lost."""
        found = self.results()
        for candidate in found.candidates if found else ():
            if candidate.metrics:
                self.work.finished[key(candidate.path)] = candidate.metrics["top1"]

    def go_on(self) -> None:
        """Wait for the end of the command, and of what it left, then resume if there is need."""
        self.command.wait(PATIENCE_S)
        end = time.monotonic() + PATIENCE_S
        while self.work.processes("") and time.monotonic() < end:
            time.sleep(0.2)
        if not self.is_over:
            self.command = (
                self._begin("resume", self.folder.name)
                if self.folder
                else self._begin("start", self.config)
            )

    def go_on_again(self) -> None:
        """Go on after an end without a kill: NNI gives up a tuner that takes ten seconds."""
        self.num_again += 1
        print(f"began again, exit code {self.command.returncode}", flush=True)
        if self.num_again > MAX_AGAIN:
            raise RuntimeError(f"{self.root}: does not go on")
        self.go_on()

    def wait(self, num_recorded: int) -> None:
        """Wait for one more outcome, or the end."""
        end = time.monotonic() + PATIENCE_S
        while self.num_recorded <= num_recorded and self.command.poll() is None:
            if time.monotonic() > end:
                raise RuntimeError(f"{self.folder}: does not go on")
            time.sleep(0.1)
        if self.command.poll() is not None and not self.is_over:
            self.go_on_again()


def kill_experiments(work: Work, targets: list[str], reference: Results) -> None:
    """Disturb one experiment after the other until all targets had their turn."""
    number = 0
    while targets:
        number += 1
        with contextlib.ExitStack() as stack:
            experiment = Experiment(work, f"exp{number}", stack)
            disturb(experiment, targets)
            compare(work, experiment.folder, experiment.output, reference)


def disturb(experiment: Experiment, targets: list[str]) -> None:
    """Run an experiment to its end, with as many disturbances as there is time for."""
    experiment.wait(0)
    while targets and not experiment.is_over:
        time.sleep(experiment.work.random.uniform(0, 2.0))
        befall = experiment.suffer if targets[-1] in TROUBLES else experiment.kill
        if experiment.command.poll() is None and befall(targets[-1]):
            targets.pop()
        if experiment.command.poll() is not None and not experiment.is_over:
            experiment.go_on()
    while not experiment.is_over:
        experiment.wait(experiment.num_recorded)


def shares(
    count: int, targets: list[str], randomness: random.Random
) -> tuple[Counter[str], list[str]]:
    """Return the kills by target, and in which order those under nnictl come."""
    by_target = Counter(targets[i % len(targets)] for i in range(count))
    under_nni = [x for x in by_target.elements() if x not in ("trainer", "search")]
    randomness.shuffle(under_nni)
    return by_target, under_nni


def measure(folder: Path, count: int, targets: list[str], seed: int) -> dict:
    """Kill so many processes; return the figures."""
    work = Work(folder, seed)
    by_target, under_nni = shares(count, targets, work.random)
    try:
        kill_trainer(work, by_target["trainer"])
        if by_target["replaced supernet"]:
            work.run("train", work.write("other", seed=1), "--continue")
        reference = kill_search(work, by_target["search"])
        kill_experiments(work, under_nni, reference)
    finally:
        left = work.processes("")
        for process in left:
            process.kill()
    return {
        "kills": dict(work.kills),
        "total": work.kills.total(),
        "trainings": work.num_trainings,
        "searches": work.num_searches,
        "finished_candidates_lost": work.num_lost,
        "evaluated_twice": work.num_twice,
        "problems": work.problems,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--targets", nargs="+", choices=ALL, default=DEFAULT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="empty, or of an earlier call; default: a temporary one")
    options = parser.parse_args()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kills_"))
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    figures = measure(folder, options.kills, options.targets, options.seed)
    print(json.dumps({**figures, "seconds": round(time.monotonic() - begin)}, indent=2))
    failed = figures["problems"] or figures["finished_candidates_lost"]
    return 1 if failed or figures["evaluated_twice"] else 0


if __name__ == "__main__":
    sys.exit(main())
