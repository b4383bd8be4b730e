"""The processes of an NNI experiment: the manager above this one, and the workers it uses."""

from __future__ import annotations

import logging
import os
import threading
import time

import psutil

_logger = logging.getLogger(__name__)

WORKER_MODULE = "nni_spos.experiment.worker"
"""Names a worker in the list of processes."""

WORKER_TIMEOUT = 5.0
"""Seconds that a worker may take to notice that its last experiment is over."""


def manager_process() -> psutil.Process | None:
    """Return the NNI manager that started this process, through a shell; None if none did."""
    for process in psutil.Process().parents():
        try:
            if any(word.endswith("main.js") for word in process.cmdline()):
                return process
        except psutil.Error:
            continue
    return None


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
