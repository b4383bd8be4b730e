"""An experiment without trials and without NNI: the real tuner in the hands of a simulation.

The simulation calls the tuner as NNI's dispatcher does, and answers for NNI's manager. State and
results are on the disk as in any experiment. What a path scores is a sum over its choices.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any
from unittest import mock

import numpy as np

from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs.stored import save_costs
from nni_spos.experiment import tuner as tuner_module
from nni_spos.experiment.manager import TrialJob
from nni_spos.experiment.tuner import EvolutionTuner
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.output import search_of_experiment
from nni_spos.recipe.recipe import load_recipe

PRIME = 10_007
"""Scores are taken modulo this, so that they do not follow the costs."""


def make_space(num_units: int, num_choices: int) -> PathSpace:
    """Return a space of units that are alike."""
    choices = [f"k{2 * i + 3}" for i in range(num_choices)]
    return PathSpace({f"layer_{i}": choices for i in range(num_units)})


def make_costs(space: PathSpace, seed: int = 0) -> dict[str, CostTable]:
    """Return a table of multiply-adds: a random million or so for every choice of every unit."""
    generator = np.random.default_rng(seed)
    factors = [
        Factor((label,), np.sort(generator.integers(10**5, 10**6, len(choices))))
        for label, choices in space.items()
    ]
    return {"flops": CostTable("flops", space, 10**6, factors)}


def median_limit(costs: dict[str, CostTable]) -> str:
    """Return a limit on the multiply-adds that about half of all paths keep."""
    table = costs["flops"]
    means = sum(float(factor.table.mean()) for factor in table.factors)
    return f"flops <= {round(table.constant + means)}"


def score(path: Path) -> float:
    """Return the made-up accuracy of a path, in percent."""
    total = sum((i + 3) * int(str(choice)[1:]) ** 2 for i, choice in enumerate(path.values()))
    return 100 * (total % PRIME) / PRIME


def fails(path: Path) -> str:
    """Return how the trial of a path fails, if it does: one in fifty each way."""
    ways = {0: "silent", 1: "not a number"}
    return ways.get(zlib.crc32(repr([*path.values()]).encode()) % 50, "")


class SimulatedManager:
    """What the tuner asks of NNI's manager.

    Parameters
    ----------
    space
        Of the paths; ended trials are kept as positions, so that they take little memory here.
    """

    def __init__(self, space: PathSpace):
        self.max_trial_number: int | None = None
        self._space = space
        self._running: dict[int, Path] = {}
        self._ended: list[tuple[int, bytes]] = []

    def start(self, parameter_id: int, path: Path) -> None:
        """Record a new trial."""
        self._running[parameter_id] = path

    def end(self, parameter_id: int) -> None:
        """Record the end of a trial."""
        key = self._space.key(self._running.pop(parameter_id))
        self._ended.append((parameter_id, bytes(key)))

    def experiment(self) -> dict[str, Any]:
        """Return what the manager says of the experiment: its id."""
        return {"id": "simulated"}

    def trial_jobs(self) -> list[TrialJob]:
        """Return every trial so far."""
        ended = ((i, "SUCCEEDED", self._space.decode([list(key)])[0]) for i, key in self._ended)
        running = ((i, "RUNNING", path) for i, path in list(self._running.items()))
        return [TrialJob(str(i), status, i, path, None) for i, status, path in (*ended, *running)]

    def intermediate_results(self, job_id: str) -> list[Any]:
        """Return what a trial reported before its end: nothing."""
        return []

    def final_result(self, job_id: str) -> None:
        """Return the result of a trial that the tuner was not told of: there is none."""
        return

    def set_max_trial_number(self, number: int) -> None:
        """Take the word of the tuner that the search is over."""
        self.max_trial_number = number


@dataclass(frozen=True)
class Lap:
    """What the tuner's callbacks took from one moment to another.

    Parameters
    ----------
    num_candidates
        Candidates told.
    ask_seconds, tell_seconds
        Wall-clock time of all requests, and of all results and ends.
    cpu_seconds
        Processor time of both.
    """

    num_candidates: int = 0
    ask_seconds: float = 0.0
    tell_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __sub__(self, earlier: Lap) -> Lap:
        return Lap(
            self.num_candidates - earlier.num_candidates,
            self.ask_seconds - earlier.ask_seconds,
            self.tell_seconds - earlier.tell_seconds,
            self.cpu_seconds - earlier.cpu_seconds,
        )


class Simulation:
    """Trials that end at once, in random order, for requests of the real tuner.

    Parameters
    ----------
    tuner
        Already started.
    manager
        The tuner's.
    concurrency
        Trials that run at a time.
    failing
        Whether some trials report nothing or no number, those that `fails` names.
    seed
        Of the order in which trials end.
    """

    def __init__(
        self,
        tuner: EvolutionTuner,
        manager: SimulatedManager,
        concurrency: int,
        failing: frozenset[str] = frozenset(),
        seed: int = 0,
    ):
        self.tuner, self.manager, self.failing = tuner, manager, failing
        self.num_requests = 0
        self.running: list[tuple[int, Path]] = []
        self.most_running = 0
        self.total = Lap()
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._request(concurrency)

    def report_error(self, text: str) -> None:
        """Fail: the tuner reports an exception."""
        raise RuntimeError(text)

    def end_trials(self, count: float = math.inf) -> int:
        """Let some trials end, or all that there are until the search is over.

        Returns
        -------
        How many ended.
        """
        num_ended = 0
        while num_ended < count:
            if self._end_one():
                num_ended += 1
            elif self.manager.max_trial_number is not None:
                break
            else:  # the tuner's own thread has to look at trials without a result
                time.sleep(0.01)
        return num_ended

    def _end_one(self) -> bool:
        with self._lock:
            self.most_running = max(self.most_running, len(self.running))
            if not self.running:
                return False
            place = self._random.randrange(len(self.running))
            self.running[place], self.running[-1] = self.running[-1], self.running[place]
            parameter_id, path = self.running.pop()
        failure = fails(path)
        failure = failure if failure in self.failing else ""
        value = {"default": math.nan if failure else score(path), "path": path}
        begin, cpu = time.perf_counter(), time.thread_time()
        if failure != "silent":
            self.tuner.receive_trial_result(parameter_id, "", value, trial_job_id="")
        self.tuner.trial_end(parameter_id, True, trial_job_id="")
        self.total = Lap(
            self.total.num_candidates + 1,
            self.total.ask_seconds,
            self.total.tell_seconds + time.perf_counter() - begin,
            self.total.cpu_seconds + time.thread_time() - cpu,
        )
        self.manager.end(parameter_id)
        self._request(1)
        return True

    def _request(self, count: int) -> None:
        ids = list(range(self.num_requests, self.num_requests + count))
        self.num_requests += count
        begin, cpu = time.perf_counter(), time.thread_time()
        self.tuner.generate_multiple_parameters(ids, st_callback=self._start)
        self.total = Lap(
            self.total.num_candidates,
            self.total.ask_seconds + time.perf_counter() - begin,
            self.total.tell_seconds,
            self.total.cpu_seconds + time.thread_time() - cpu,
        )

    def _start(self, parameter_id: int, path: Path) -> None:
        with self._lock:
            self.running.append((parameter_id, path))
        self.manager.start(parameter_id, path)


def write_experiment(folder: FilePath, space: PathSpace, **search: Any) -> FilePath:
    """Write a recipe with its cost table; return the folder of its state."""
    costs = make_costs(space)
    content = {
        "output": "output",
        "space": {"name": "shufflenet"},
        "data": {"name": "digits"},
        "supernet": {"epochs": 1},
        "retrain": {"epochs": 1},
        "search": {"constraints": [median_limit(costs)], **search},
    }
    file = folder / "recipe.yml"
    file.write_text(json.dumps(content))  # JSON is YAML
    save_costs(load_recipe(file), space, costs)
    state = folder / "checkpoint"
    state.mkdir(exist_ok=True)
    return state


@contextlib.contextmanager
def started_tuner(
    folder: FilePath, space: PathSpace, manager: SimulatedManager
) -> Iterator[EvolutionTuner]:
    """Start a tuner on the experiment in a folder; it goes on with the state that is there."""
    environment = {
        "NNI_CHECKPOINT_DIRECTORY": str(folder / "checkpoint"),
        "NNI_TUNER_COMMAND_CHANNEL": "ws://localhost:1/tuner",
        "NNI_MODE": "start",
    }
    with (
        mock.patch.dict("os.environ", environment),
        mock.patch.object(tuner_module.Manager, "from_channel", return_value=manager),
        mock.patch.multiple(EvolutionTuner, GRACE=0.1, TICK=0.05),
    ):
        tuner = EvolutionTuner(recipe=str(folder / "recipe.yml"))
        try:
            tuner.update_search_space(space.to_search_space())
            yield tuner
        finally:
            tuner._on_exit()


def journal_of(folder: FilePath) -> FilePath:
    """Return the file of an experiment's outcomes."""
    return search_of_experiment(folder).journal
