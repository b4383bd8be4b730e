"""The trial's side of a worker: find it, or start it, and ask it for the score of a path.

A worker is a process that holds a supernet and its data, and scores the paths of all trials that
run at the time together, see `nni_spos.experiment.worker`. Everything that its scores depend on
is its identity, and each identity has a folder of its own, ``OUTPUT/workers/KEY``, so a trial
never asks a worker that holds something else.

Nothing here imports PyTorch or NNI: a trial that asks a worker costs little more than the start
of Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path as FilePath
from typing import Any

import psutil

from nni_spos.child import python_command
from nni_spos.digests import digest_content
from nni_spos.errors import CheckpointError, EvaluatorError, ExperimentError, FailedPathError
from nni_spos.experiment.processes import WORKER_MODULE, manager_process
from nni_spos.files import write_json
from nni_spos.identity import Result, describe
from nni_spos.locks import exclusive
from nni_spos.path import Choice
from nni_spos.recipe import Recipe

MAX_MESSAGE = 1 << 20
"""Bytes that a question or an answer may have."""

ATTEMPTS = 2
"""How many workers are tried with a path: it may be the path that ends them."""

LOG_LINES = 5
"""Lines of a worker's log that an error repeats."""

DECIDING_VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Parts of the environment that a worker keeps from the trial that started it."""


@dataclass(frozen=True)
class WorkerFolder:
    """Where the worker of an identity and its trials meet.

    Parameters
    ----------
    path
        A folder of this user alone.
    """

    path: FilePath

    @property
    def lock(self) -> FilePath:
        """Held by a trial that looks for the worker or starts it."""
        return self.path / "start.lock"

    @property
    def identity(self) -> FilePath:
        """What the worker must be, for people and for the worker itself."""
        return self.path / "identity.json"

    @property
    def address(self) -> FilePath:
        """Where the worker listens, and its secret: only this user can read it."""
        return self.path / "address.json"

    @property
    def log(self) -> FilePath:
        """Output of all workers that there were."""
        return self.path / "worker.log"


@dataclass(frozen=True)
class Answer:
    """What a worker says of a path.

    Parameters
    ----------
    results
        See `nni_spos.experiment.scoring.Scorer.score_many`.
    memory
        What the worker needed so far, see `nni_spos.stage_cost.measure_memory`.
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
    """Return the folder of an identity, which need not be there."""
    return WorkerFolder(recipe.output / "workers" / digest_content(identity))


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
        The worker is in trouble, or did not start, twice; then the text ends with the last lines
        of its log.
    FailedPathError
        The path cannot be scored.
    ExperimentError
        The worker died with it, twice.
    """
    manager = manager or manager_process()
    user = None if manager is None else [manager.pid, manager.create_time()]
    question = json.dumps({"path": dict(path), "manager": user}).encode()
    error: type[ExperimentError] = EvaluatorError
    for _ in range(ATTEMPTS):
        # Anew each time: a worker ends when its checkpoint is replaced.
        identity = identify(recipe)
        folder = worker_folder(recipe, identity)
        connection = _open(folder, identity, user)
        if connection is None:
            continue
        answer = _ask(connection, question)
        if answer is not None:
            break
        error = ExperimentError  # it may be the path
    else:
        raise error(
            f"the worker that evaluates paths ended, or did not start, {ATTEMPTS} times. "
            f"{_end_of_log(folder)}"
        )
    if "unusable" in answer:
        raise EvaluatorError(answer["unusable"])
    if "failed" in answer:
        raise FailedPathError(answer["failed"])
    if "error" in answer:
        raise EvaluatorError(answer["error"])
    return Answer(answer["results"], answer.get("memory"), answer.get("notes", ()))


def _ask(connection: Connection, question: bytes) -> dict[str, Any] | None:
    """Return the worker's answer, or None if it is gone before it has one."""
    with connection:
        try:
            connection.send_bytes(question)
            return json.loads(connection.recv_bytes(MAX_MESSAGE))
        except (EOFError, OSError):
            return None


def _open(
    folder: WorkerFolder, identity: Mapping[str, Any], user: list[float] | None
) -> Connection | None:
    """Connect to the worker of a folder; start it if there is none, while others wait."""
    refusal = ExperimentError(f"{folder.lock}: is held by another process.")
    folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with exclusive(folder.lock, timeout=-1, refusal=refusal):
        connection = connect(folder)
        if connection is None:
            write_json(folder.identity, identity)
            _start(folder, user)
            connection = connect(folder)
        return connection


def connect(folder: WorkerFolder) -> Connection | None:
    """Connect to the worker of a folder, or return None if no worker answers.

    What a worker that was killed left behind, or another process in its place that does not know
    the secret, counts as no worker.
    """
    try:
        content = json.loads(folder.address.read_text(encoding="utf-8"))
        address, key = content["address"], bytes.fromhex(content["key"])
        return Client(address if isinstance(address, str) else tuple(address), authkey=key)
    except (OSError, EOFError, AuthenticationError, ValueError, LookupError, TypeError):
        return None


def _start(folder: WorkerFolder, user: list[float] | None) -> None:
    """Start a worker and wait until it listens, or is gone.

    It is in no way this process's own: when NNI ends a trial, it must go on for the others.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NNI_") or k == "NNI_EXP_ID"}
    command = python_command(WORKER_MODULE, [str(folder.path), *map(repr, user or [])])
    with open(folder.log, "ab") as log:
        process = subprocess.Popen(
            command,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.read()  # it closes its end when it listens
    if hasattr(os, "fork"):
        process.wait()  # what was started is the worker's parent, which has ended


def _end_of_log(folder: WorkerFolder) -> str:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
    shown = [line.strip() for line in lines if line.strip()][-LOG_LINES:]
    return f"The end of {folder.log}: {' | '.join(shown) or 'it is empty'}"
