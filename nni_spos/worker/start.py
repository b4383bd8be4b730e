"""Starting a worker."""

from __future__ import annotations

import os
import subprocess
import time
from typing import BinaryIO

from nni_spos.files.owned import open_own
from nni_spos.process.child import python_command
from nni_spos.process.nni_processes import WORKER_MODULE, end_worker
from nni_spos.worker.patience import Bounded, Unresponsive
from nni_spos.worker.place import WorkerFolder


def start_worker(folder: WorkerFolder, manager: int | None) -> None:
    """Start a worker and wait until it listens, or is gone; one that is stopped is ended.

    It is in no way this process's own: when NNI ends a trial, it must go on for the others.

    Parameters
    ----------
    folder
        Has its identity.
    manager
        Number of the process whose end ends it, unless others use it.

    Raises
    ------
    OSError
        Its log cannot be written.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NNI_") or k == "NNI_EXP_ID"}
    arguments = [str(folder.path), str(folder.private)]
    if manager is not None:
        arguments.append(str(manager))
    with _open_log(folder) as log:
        process = subprocess.Popen(
            python_command(WORKER_MODULE, arguments),
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    output = process.stdout
    assert output is not None
    pid = process.pid
    try:
        # What was started begins another process, and ends.
        if (line := Bounded(output.readline).call().strip()).isdigit():
            pid = int(line)
        Bounded(output.read).call()  # the worker closes its end when it listens
    except Unresponsive as problem:
        note_end(folder, pid, str(problem))
        if pid == process.pid:
            process.kill()
        else:
            end_worker(pid, str(folder.private))
    else:
        output.close()
    if hasattr(os, "fork"):
        process.wait()


def note_end(folder: WorkerFolder, pid: int, reason: str) -> None:
    """Write into a worker's log why a trial ends it."""
    with _open_log(folder) as log:
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"{moment} worker {pid}: is ended by a trial: {reason}\n".encode())


def _open_log(folder: WorkerFolder) -> BinaryIO:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.fdopen(open_own(folder.log, flags, 0o600), "ab")
