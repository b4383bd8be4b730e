"""A space whose networks wait as long as a file is there, and workers in which they do so.

The file is named by the environment variable HOLD, so it holds workers and not the tests.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from trained_recipes import write_trained
from waiting import PATIENCE, wait_until

from nni_spos.modules.memory_format import NUM_IMAGES
from nni_spos.process.nni_processes import WORKER_MODULE, is_alive
from nni_spos.recipe.recipe import Recipe
from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.worker.client import ask_worker, identify, worker_folder
from nni_spos.worker.place import WorkerFolder


def reached_file(hold: Path, pid: int) -> Path:
    """Where a process says that it is held: each its own file, as a killed one may say it late."""
    return hold.with_suffix(f".reached-{pid}")


class Held(ShuffleNetV2Space):
    """Says that it is evaluated, and waits; not when its memory format is tried."""

    def forward(self, images):
        hold = os.environ.get("HOLD") if len(images) > NUM_IMAGES else None
        while hold and Path(hold).exists():
            reached_file(Path(hold), os.getpid()).touch()
            time.sleep(0.02)
        return super().forward(images)


def score_with_worker(recipe, path, manager=None):
    """Return what an inline scorer returns, too."""
    return ask_worker(recipe, path, manager).results


class Workers:
    """A recipe of the space above, and what its workers do.

    Parameters
    ----------
    folder
        An empty one.
    evaluation
        Changes to the recipe's section.
    """

    def __init__(self, folder: Path, **evaluation: Any):
        self.folder = folder
        self.hold = folder / "hold"
        # Results of workers are compared with results: they must not be looked up.
        evaluation = {"cache": False, **evaluation}
        self.recipe: Recipe = write_trained(
            folder, space={"name": "worker_requests:Held"}, evaluation=evaluation
        )
        self.managers: list[psutil.Popen] = []

    @property
    def place(self) -> WorkerFolder:
        return worker_folder(self.recipe, identify(self.recipe))

    def log(self) -> str:
        return "".join(file.read_text() for file in self.folder.rglob("worker.log"))

    def manager(self) -> psutil.Popen:
        """Start a process that stands for the manager of an experiment."""
        self.managers.append(psutil.Popen(["sleep", "600"]))
        return self.managers[-1]

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                command = process.cmdline()
            except psutil.Error:
                continue
            is_ours = any(word.startswith(str(self.folder)) for word in command)
            if WORKER_MODULE in command and is_ours and is_alive(process):
                found.append(process)
        return found

    def wait_for_evaluation(self, other_than: psutil.Process | None = None) -> psutil.Process:
        """Wait until a worker evaluates, held, and return its process."""

        def find() -> psutil.Process | None:
            for process in self.processes():
                if process != other_than and reached_file(self.hold, process.pid).exists():
                    return process
            return None

        process = wait_until(find)
        reached_file(self.hold, process.pid).unlink()
        return process

    def end(self) -> None:
        """End the managers: no worker may be left after that."""
        for manager in self.managers:
            if manager.poll() is None:
                manager.kill()
                manager.wait()
        self.hold.unlink(missing_ok=True)
        _, left = psutil.wait_procs(self.processes(), PATIENCE)
        for process in left:
            process.kill()
        assert not left, "a worker outlived its experiments"


class Call:
    """A function in a thread of its own."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._function, self._arguments = function, arguments
        self._outcome: Any = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome = self._function(*self._arguments)
        except Exception as problem:
            self._outcome = problem

    def result(self) -> Any:
        """Return its result, or raise what it raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "waited in vain"
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome
