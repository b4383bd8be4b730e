"""A process that scores the paths of all trials that run on this machine at the time.

``python -m nni_spos.worker.service FOLDER PRIVATE [PID]`` is what a trial runs if nobody
listens in the private folder of its recipe, see `nni_spos.worker.client`. Trials send
one path each; those that are there together are scored as one population, which shares work.

Messages are JSON over a socket of this user; both sides prove first that they know the secret in
the folder. No message is ever unpickled. A trial that waits hears once a second that the worker
lives, and how far it is, see `nni_spos.worker.patience`.

A worker belongs to no trial. It ends by itself: when the NNI managers of all trials that it heard
of are gone, when no trial was there for a while, when its checkpoint was replaced, or when
another worker took its place in the folder. A trial whose worker ends before it answers starts
another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.display.progress import Progress, note_progress
from nni_spos.errors import ExperimentError, FailedPathError, SposError
from nni_spos.files.atomic import read_json
from nni_spos.path import Choice, Path
from nni_spos.process.stage_cost import measure_memory
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.scoring.failures import (
    check_finite,
    explain,
    is_of_the_path,
    named,
    raise_if_cuda_is_lost,
)
from nni_spos.scoring.notes import collecting
from nni_spos.worker.client import checkpoint_stamp, identify, worker_folder
from nni_spos.worker.place import WorkerFolder
from nni_spos.worker.reception import Endpoint, Reception, log

TICK_S = 0.2
"""Seconds between two looks at whether this worker should end."""

QUIET_S = 0.05, 2.0
"""Least and most seconds in which no trial comes after which those that are there are served."""

QUIET_SHARE = 0.1
"""Those seconds as a part of what the longest evaluation took."""

ScoreMany = Callable[[Sequence[Mapping[str, Choice]], Progress], Sequence[Mapping[str, float]]]


def evaluate(
    score_many: ScoreMany, paths: Sequence[Path], progress: Progress
) -> list[dict[str, Any]]:
    """Score paths together or, if that fails, each by itself, so that only bad ones fail.

    Parameters
    ----------
    score_many
        Returns the results of several paths.
    paths
        Label to choice.
    progress
        Called again and again while it goes on.

    Returns
    -------
    For each path its ``results``; why it has ``failed``, in words; or the ``error`` that kept it
    from its results and is not what it does.

    Raises
    ------
    RuntimeError
        The GPU is lost to this process: every other path would fail too.
    """
    try:
        return [_answer(results) for results in score_many(paths, progress)]
    except Exception as problem:
        raise_if_cuda_is_lost(problem)
        if not isinstance(problem, SposError):
            log(traceback.format_exc())
        if len(paths) == 1:
            kind = "failed" if is_of_the_path(problem) else "error"
            return [{kind: explain(problem, paths[0])}]
        log(f"{len(paths)} paths fail together, so each is evaluated alone: {problem}")
    return [evaluate(score_many, [path], progress)[0] for path in paths]


def _answer(results: Mapping[str, float]) -> dict[str, Any]:
    """Return what a trial is told of a path."""
    try:
        check_finite(results)
    except FailedPathError as problem:
        return {"failed": str(problem)}
    return {"results": dict(results)}


class Worker:
    """Answer the requests of a reception.

    The trials of an experiment come and go together: those that replace the ones that were just
    answered take a moment to start. To wait for them pays if an evaluation takes much longer.

    Parameters
    ----------
    reception
        Where they come from.
    score_many
        Returns the results of several paths.
    """

    def __init__(self, reception: Reception, score_many: ScoreMany):
        self._reception = reception
        self._score_many = score_many
        self._notes: list[str] = []
        self._most = 1
        self._longest_s = 0.0

    def step(self) -> None:
        """Wait for requests, evaluate their paths together, each once, and answer them."""
        quiet_s = min(max(QUIET_S[0], QUIET_SHARE * self._longest_s), QUIET_S[1])
        requests = self._reception.gather(self._most, quiet_s)
        self._most = max(self._most, len(requests))
        paths = {_key(request.path): request.path for request in requests}
        if not paths:
            return
        begin = time.monotonic()
        self._reception.share = 0.0
        with collecting(self._notes):
            found = evaluate(self._score_many, list(paths.values()), self._show)
        answers = dict(zip(paths, found, strict=True))
        seconds = time.monotonic() - begin
        self._longest_s = max(self._longest_s, seconds)
        log(f"paths: {len(paths)}, trials: {len(requests)}, seconds: {seconds:.2f}")
        memory = measure_memory()
        for request in requests:
            answer = answers[_key(request.path)]
            request.trial.send({**answer, "memory": memory, "notes": self._notes})

    def _show(self, share: float) -> None:
        self._reception.share = share
        note_progress()


def _key(path: Path) -> str:
    return json.dumps(path, sort_keys=True)


@dataclass(frozen=True)
class WorkerContext:
    """What a worker must keep an eye on.

    Parameters
    ----------
    recipe
        Names the checkpoint that it holds.
    stamp
        Of this checkpoint, see `nni_spos.worker.client.checkpoint_stamp`.
    endpoint
        Where it can be found.
    reception
        Who uses it.
    """

    recipe: Recipe
    stamp: Sequence[Any]
    endpoint: Endpoint
    reception: Reception

    def reason_to_end(self) -> str | None:
        """Return why the worker should end now, or None."""
        if not self.endpoint.is_published():
            return "another worker has its place"
        if self.reception.is_stuck():
            return "a thread of it does not begin, perhaps for want of memory"
        if self.reception.is_deserted():
            return "the experiments are over"
        if not self.is_current():
            return "the checkpoint was replaced"
        limit = self.recipe.evaluation.worker_idle_s
        if self.reception.idle_s() >= limit:
            return f"there was no trial for {limit} seconds"
        return None

    def is_current(self) -> bool:
        """Whether the checkpoint is still the one that the worker is for."""
        try:
            return checkpoint_stamp(self.recipe) == self.stamp
        except SposError:
            return False

    def watch(self) -> None:
        """End this process as soon as there is a reason, also in the middle of an evaluation."""
        while (reason := self.reason_to_end()) is None:
            time.sleep(TICK_S)
        self.endpoint.remove()
        log(f"ends: {reason}")
        os._exit(0)


def main() -> None:
    """Say the own number, listen, close standard output, load the supernet and answer for ever."""
    if hasattr(os, "fork") and os.fork():
        os._exit(0)  # the trial waits for this process; the worker is nobody's child
    print(os.getpid(), flush=True)
    _survive_full_disk()
    faulthandler.enable(2)  # of what a signal says of a crash, nobody else is told
    threading.excepthook = _end_with_thread
    context = None
    try:
        context = _open_context(WorkerFolder(*map(FilePath, sys.argv[1:3])))
        for manager in sys.argv[3:]:
            context.reception.note_manager(int(manager))
        context.reception.open()
        threading.Thread(target=context.watch, name="watch", daemon=True).start()
        log("listens")
        _close_stdout()
        _serve(context)
    except Exception as problem:
        if not isinstance(problem, SposError):
            log(traceback.format_exc())
        log(f"ends: {type(problem).__name__}: {problem}")
    if context is not None:
        context.endpoint.remove()
    os._exit(1)


def _end_with_thread(end: threading.ExceptHookArgs) -> None:
    """End this process with a thread that fails: trials would wait for what it no longer does."""
    log(f"ends with its thread: {end.exc_type.__name__}: {end.exc_value}")
    os._exit(1)


def _open_context(folder: WorkerFolder) -> WorkerContext:
    identity = read_json(folder.identity, ExperimentError)
    recipe = dataclasses.replace(load_recipe(identity["recipe"]), kept=identity["supernet"])
    if worker_folder(recipe, identify(recipe)).private != folder.private:
        raise ExperimentError("the recipe or its checkpoint has changed.")
    endpoint = Endpoint(folder)
    reception = Reception(endpoint)
    return WorkerContext(recipe, identity["checkpoint"], endpoint, reception)


def _serve(context: WorkerContext) -> None:
    """Answer requests for ever; or, if the supernet cannot be opened, answer that."""
    try:
        from nni_spos.search.scorer import open_scorer

        scorer = open_scorer(context.recipe)
    except Exception as problem:  # also for want of memory, or of a file
        context.endpoint.remove()
        for request in context.reception.gather():
            request.trial.send({"unusable": named(problem)})
        raise
    if not context.is_current():
        raise ExperimentError("the checkpoint was replaced while it was read.")
    log("holds the supernet")
    worker = Worker(context.reception, scorer.score_many)
    while True:
        worker.step()


class _Log(io.RawIOBase):
    """Standard error, the worker's log; what cannot be written to it, on a full disk, is lost."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, content: Any) -> int:
        with contextlib.suppress(OSError):
            return os.write(2, content)
        return len(content)


def _survive_full_disk() -> None:
    """Let no worker end because it cannot write to its log."""
    sys.stderr = io.TextIOWrapper(_Log(), "utf-8", "backslashreplace", write_through=True)


def _close_stdout() -> None:
    """Let the trial that waits go on; what is printed goes to the log from here on."""
    sys.stdout.flush()
    os.dup2(2, 1)
    sys.stdout = sys.stderr


if __name__ == "__main__":
    main()
