"""The trial's side of a worker: find it, or start it, and ask it for the score of a path.

A worker is a process that holds a supernet and its data, and scores the paths of all trials that
run at the time together, see `nni_spos.worker.service`. Everything that its scores depend on
is its identity, and each identity has folders of its own, so a trial never asks a worker that holds
something else: ``OUTPUT/workers/KEY`` for its log, and one that only this user can enter, where the
two meet.

Nothing here imports PyTorch or NNI: a trial that asks a worker costs little more than the start
of Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path as FilePath
from typing import Any

import psutil

from nni_spos.errors import CheckpointError, EvaluatorError, FailedPathError, one_line
from nni_spos.files.atomic import write_json
from nni_spos.files.digests import digest_content
from nni_spos.files.locks import exclusive
from nni_spos.files.owned import open_own
from nni_spos.path import Choice
from nni_spos.process.nni_processes import end_worker, manager_process
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.worker.end import describe_end, num_killed_for_memory
from nni_spos.worker.meeting_place import meeting_place
from nni_spos.worker.patience import SILENCE_S, Bounded, Unresponsive, receive_answer
from nni_spos.worker.place import WorkerFolder
from nni_spos.worker.start import note_end, start_worker

ATTEMPTS = 2
"""How many workers are tried with a path: it may be the path that ends them."""

LOCK_S = 5 * SILENCE_S
"""Seconds that a trial waits for another one that looks for the worker or starts it.

That one itself waits for less, so it is stopped; then it is not waited for any more.
"""

MAX_ADDRESS = 10_000
"""Characters of the file that says where a worker listens."""

DECIDING_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Parts of the environment that a worker keeps from the trial that started it."""


@dataclass(frozen=True)
class Answer:
    """What a worker says of a path.

    Parameters
    ----------
    results
        See `nni_spos.search.scorer.Scorer.score_many`.
    memory
        What the worker needed so far, see `nni_spos.process.stage_cost.measure_memory`.
    notes
        What the worker warned of so far.
    """

    results: dict[str, float]
    memory: Any
    notes: Sequence[str] = ()


def identify(recipe: Recipe) -> dict[str, Any]:
    """Return everything that a worker's scores depend on, as JSON values.

    That is the checkpoint; the parts of the recipe that decide scores, with the code of a user's
    own space; the device; and on which machine, as which user and with which Python all this is
    run.

    Raises
    ------
    CheckpointError
        There is no checkpoint.
    """
    content = {
        "checkpoint": checkpoint_stamp(recipe),
        "supernet": recipe.kept,
        "recipe": str(recipe.file),
        **describe(Result.WORKER, recipe),
        "environment": {name: os.environ.get(name) for name in DECIDING_VARIABLES},
        "host": platform.node(),
        "user": os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME"),
        "python": sys.executable,
    }
    return json.loads(json.dumps(content, default=str))


def checkpoint_stamp(recipe: Recipe) -> list[Any]:
    """Return what a recipe's checkpoint is known by, at no cost.

    Its absolute path, size in bytes, time of change in nanoseconds and inode: whoever writes a
    checkpoint here makes a new file, so that at least one of these differs.

    Raises
    ------
    CheckpointError
        There is no checkpoint.
    """
    try:
        file = recipe.checkpoint.stat()
    except OSError as problem:
        raise CheckpointError(
            f"{recipe.checkpoint}: cannot be read ({problem.strerror}). Train the supernet first: "
            "nni-spos train RECIPE."
        ) from None
    return [str(recipe.checkpoint), file.st_size, file.st_mtime_ns, file.st_ino]


def worker_folder(recipe: Recipe, identity: Mapping[str, Any]) -> WorkerFolder:
    """Return the folders of an identity, which need not be there."""
    key = digest_content(identity)
    return WorkerFolder(recipe.files.worker(key), meeting_place() / key)


def ask_worker(
    recipe: Recipe, path: Mapping[str, Choice], manager: psutil.Process | None = None
) -> Answer:
    """Let the worker of a recipe score a path; the first caller starts it.

    Parameters
    ----------
    recipe
        As it is in its file, with a trained supernet.
    path
        Label to choice.
    manager
        The process whose end ends the worker, unless others use it; by default the NNI manager
        that started this process, if one did.

    Raises
    ------
    CheckpointError
        The supernet is not trained.
    EvaluatorError
        The worker is in trouble, cannot open the supernet, or cannot be started; or it ended before
        it had an answer, twice: then the text says what is known of its end, and ends with the last
        lines of its log.
    FailedPathError
        The path cannot be scored.
    """
    manager = manager or manager_process()
    user = None if manager is None else manager.pid
    question = json.dumps({"path": dict(path), "manager": user}).encode()
    num_killed = num_killed_for_memory()
    for _ in range(ATTEMPTS):
        # Anew each time: a worker ends when its checkpoint is replaced.
        identity = identify(recipe)
        folder = worker_folder(recipe, identity)
        try:
            folder = folder.make()
            line = _open(folder, identity, user)
            answer = None if line is None else _ask(folder, line, question)
        except OSError as problem:
            reason = one_line(str(problem))
            raise EvaluatorError(f"the worker cannot be started: {reason}") from None
        if answer is not None:
            break
    else:
        log = folder.end_of_log()
        raise EvaluatorError(
            f"the worker that evaluates paths ended, or did not start, {ATTEMPTS} times"
            f"{describe_end(log, num_killed)}. {log}"
        )
    if "unusable" in answer:
        raise EvaluatorError(answer["unusable"])
    if "failed" in answer:
        raise FailedPathError(answer["failed"])
    if "error" in answer:
        raise EvaluatorError(answer["error"])
    return Answer(answer["results"], answer.get("memory"), answer.get("notes", ()))


@dataclass(frozen=True)
class Line:
    """A connection to a worker.

    Parameters
    ----------
    connection
        Both sides have proved that they know the secret.
    pid
        Number of its process.
    """

    connection: Connection
    pid: int


def _ask(folder: WorkerFolder, line: Line, question: bytes) -> dict[str, Any] | None:
    """Return the worker's answer, or None if it is gone before it has one."""
    with line.connection as connection:
        try:
            connection.send_bytes(question)
            return receive_answer(connection)
        except Unresponsive as problem:
            _end(folder, line.pid, problem)
        except (EOFError, OSError, ValueError, TypeError):
            pass
    return None


def _open(folder: WorkerFolder, identity: Mapping[str, Any], user: int | None) -> Line | None:
    """Connect to the worker of a folder; start it if there is none, while others wait."""
    refusal = EvaluatorError(f"{folder.lock}: another trial has held it for {LOCK_S:.0f} s.")
    for _ in range(ATTEMPTS):
        held = _stamp(folder.lock)
        with (
            contextlib.suppress(EvaluatorError),
            exclusive(folder.lock, timeout=LOCK_S, refusal=refusal),
        ):
            line = _dial(folder)
            if line is None:
                write_json(folder.identity, identity)
                start_worker(folder, user)
                line = _dial(folder)
            return line
        # Whoever has it goes on to have it, but nobody looks there any more. Should that trial
        # come to life and start a worker, one of two takes the other's place.
        if held is not None and _stamp(folder.lock) == held:
            folder.lock.unlink(missing_ok=True)
    raise refusal


def _stamp(file: FilePath) -> tuple[int, int] | None:
    """Return what tells a file from another one that takes its name."""
    try:
        found = os.lstat(file)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def _dial(folder: WorkerFolder) -> Line | None:
    """Connect to the worker of a folder, or return None; one that is stopped is ended."""
    pid = 0
    try:
        with open(open_own(folder.address, os.O_RDONLY), encoding="utf-8") as stream:
            content = json.loads(stream.read(MAX_ADDRESS))
        address, key, pid = content["address"], bytes.fromhex(content["key"]), int(content["pid"])
        if isinstance(address, str):
            _check_socket(address)
        else:
            address = tuple(address)
        return Line(Bounded(lambda: Client(address, authkey=key)).call(), pid)
    except Unresponsive as problem:
        _end(folder, pid, problem)
    except Exception:  # also what Python raises for other bytes than it expects
        pass
    return None


def _check_socket(address: str) -> None:
    """Refuse what is not a socket of this user. Raises OSError."""
    found = os.lstat(address)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{address}: is not a socket of this user")


def _end(folder: WorkerFolder, pid: int, problem: Unresponsive) -> None:
    if end_worker(pid, str(folder.private)):
        note_end(folder, pid, str(problem))


def connect(folder: WorkerFolder) -> Connection | None:
    """Connect to the worker of a folder, or return None if no worker answers.

    What a worker that was killed left behind, or another process in its place that does not know
    the secret, counts as no worker.
    """
    line = _dial(folder)
    return None if line is None else line.connection
