"""The processes of an NNI experiment: the manager above this one, and the workers it uses."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator

import psutil

_logger = logging.getLogger(__name__)

WORKER_MODULE = "nni_spos.worker.service"
"""Names a worker in the list of processes."""

WORKER_TIMEOUT = 5.0
"""Seconds that a worker may take to notice that its last experiment is over."""


def manager_process() -> psutil.Process | None:
    """Return the NNI manager that started this process, through a shell; None if none did."""
    for process in _ancestors(psutil.Process()):
        with contextlib.suppress(psutil.Error):
            if any(word.endswith("main.js") for word in process.cmdline()):
                return process
    return None


def _ancestors(process: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the parent of a process, its parent, and so on.

    psutil's own function compares when they began, in the time of the system's clock, which may
    have been set meanwhile.
    """
    with contextlib.suppress(psutil.Error):
        while (parent := process.ppid()) not in (0, process.pid):
            process = psutil.Process(parent)
            yield process


def end_with_manager(interval: float) -> None:
    """End this process, whatever it does, once the manager that started it is gone.

    On a thread of its own that needs no lock: NNI's channel to the manager can wait for ever on
    the thread that sends, or receives, and what waits for that thread would never end either.

    Parameters
    ----------
    interval
        Seconds between two looks.
    """
    manager = manager_process()
    if manager is None:
        return

    def watch() -> None:
        while is_alive(manager):
            time.sleep(interval)
        _logger.error("the NNI manager is gone")
        os._exit(1)

    threading.Thread(target=watch, name="end-with-manager", daemon=True).start()


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that ended but was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_worker(pid: int, folder: str) -> bool:
    """End a worker at once, also one that is stopped; whether there was one to end.

    Parameters
    ----------
    pid
        The number that it had. Another process that has it now is left alone.
    folder
        Of the worker, the second of its arguments.
    """
    try:
        process = psutil.Process(pid)
        command = process.cmdline()
        if WORKER_MODULE not in command or folder not in command:
            return False
        process.kill()
    except (psutil.Error, ValueError, OverflowError, TypeError):
        return False
    end = time.monotonic() + WORKER_TIMEOUT
    while is_alive(process) and time.monotonic() < end:
        time.sleep(0.02)
    return True


def wait_for_workers(experiment_id: str, timeout: float = WORKER_TIMEOUT) -> None:
    """Wait until the workers that an experiment started have ended, as they do without it.

    One that another experiment still uses goes on; it is waited for in vain.
    """
    workers = []
    for process in psutil.process_iter():
        try:
            is_worker = WORKER_MODULE in process.cmdline()
            if is_worker and process.environ().get("NNI_EXP_ID") == experiment_id:
                workers.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(workers, timeout)
