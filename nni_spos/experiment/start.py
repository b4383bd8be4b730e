"""Run an NNI experiment from its start to its end.

``nnictl create`` alone reports success for a tuner that cannot start, leaves the experiment
running when it is done, and opens it to the network without a password.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

import psutil
from tqdm import tqdm

from nni_spos.display.announcement import announce
from nni_spos.display.progress import open_bar
from nni_spos.errors import ExperimentError
from nni_spos.experiment.check import check_config
from nni_spos.experiment.connections import knows_users
from nni_spos.experiment.failure import explain_failure, explain_no_result, explain_stop
from nni_spos.experiment.manager import Manager
from nni_spos.experiment.manager_environment import OPEN_TO_USERS, nnictl_environment
from nni_spos.experiment.remote import check_trained, check_within_reach, is_remote
from nni_spos.experiment.resuming import check_resumable
from nni_spos.experiment.start_locks import experiment_lock, port_lock
from nni_spos.process.child import python_command
from nni_spos.process.nni_processes import is_alive, wait_for_workers
from nni_spos.process.termination import deferred_signals, raise_on_signals
from nni_spos.recipe.output import search_of_experiment
from nni_spos.search.results import Results, experiment_folder, load_results, read_manifest
from nni_spos.search.run_record import read_run_record

STOP_TIMEOUT = 90.0
"""Seconds that an experiment may take to stop; NNI gives a tuner 30 and a trial 5 of them."""
LIST_TIMEOUT = 2.0
"""Seconds in which NNI's list must name the manager: NNI writes it anew now and then."""
LOST_AFTER = 30.0
"""Seconds without an answer of a manager that still runs."""


@dataclass(frozen=True)
class StartResult:
    """An experiment that has ended.

    Parameters
    ----------
    id
        NNI's id.
    status
        ``DONE``, or ``STOPPED`` if somebody stopped it before its end.
    folder
        The experiment's folder.
    """

    id: str
    status: str
    folder: FilePath

    @property
    def results(self) -> Results:
        """What was found. Raises ExperimentError if there is nothing yet."""
        return load_results(self.folder)


@dataclass(frozen=True)
class ManagerOptions:
    """How NNI's manager runs.

    Parameters
    ----------
    port
        Port of NNI's web page. Only this user can open it, and only on this machine.
    public
        Open the page to the network. It has no password.
    keep
        Keep the web page running after the end.
    """

    port: int = 8080
    public: bool = False
    keep: bool = False


def start(
    config_file: str | os.PathLike[str],
    options: ManagerOptions | None = None,
    report: Callable[[str], None] = print,
) -> StartResult:
    """Check an NNI configuration, run it to its end and stop the manager.

    Parameters
    ----------
    config_file
        As for ``nnictl create --config``.
    options
        How the manager runs.
    report
        Called with each line of text for the user.

    Raises
    ------
    RecipeError
        The configuration is not valid.
    ExperimentError
        The port is in use, the machines of the trials cannot reach this one, or the experiment
        failed; the message says why and where to look.
    """
    options = options or ManagerOptions()
    checked = check_config(config_file)
    for warning in checked.warnings:
        report(f"warning: {warning}")
    if is_remote(checked.config):
        check_trained(checked.config, checked.recipe)
        if not options.public:
            check_within_reach(checked.config, options.port)
    elif checked.recipe.search.sensitivity and checked.recipe.checkpoint.exists():
        report("each choice is tried alone first, without a trial: search.sensitivity")
    command = ["create", "--config", str(checked.file)]
    with port_lock(options.port):
        return _run(command, None, options, checked.num_candidates, report)


def resume(
    experiment_id: str,
    options: ManagerOptions | None = None,
    report: Callable[[str], None] = print,
) -> StartResult:
    """Go on with a stopped experiment, or one whose manager was killed; else as `start`.

    Raises the errors of `nni_spos.experiment.resuming.check_resumable` too.
    """
    options = options or ManagerOptions()
    folder = experiment_folder(experiment_id)
    if (
        not options.public
        and (read_manifest().get(experiment_id) or {}).get("platform") == "remote"
    ):
        report("warning: other machines reach NNI's manager only with --public or through tunnels")
    command = ["resume", experiment_id]
    # Without the folder nnictl asks its list, where a manager killed just now still counts as
    # running, and then fails with an exception of its own.
    command += ["--experiment_dir", str(folder.parent)]
    with experiment_lock(experiment_id), port_lock(options.port):
        if is_running(experiment_id):
            raise ExperimentError(
                f"experiment {experiment_id} is running. Stop it first: nnictl stop {experiment_id}"
            )
        check_resumable(experiment_id, folder)
        number = _num_candidates(experiment_id)
        return _run(command, experiment_id, options, number, report)


def stop(experiment_id: str) -> None:
    """Stop an experiment and wait until its manager is gone, as ``nnictl stop`` does.

    Its worker, which notices that, is waited for too.

    Raises
    ------
    ExperimentError
        It does not stop; the process is named.
    """
    manager = _manager_process(experiment_id)
    try:
        if manager is not None:
            manager.terminate()
            manager.wait(STOP_TIMEOUT)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired as problem:
        raise ExperimentError(
            f"experiment {experiment_id} does not stop. Its process is {problem.pid}."
        ) from None
    wait_for_workers(experiment_id)


def is_running(experiment_id: str) -> bool:
    """Whether the manager of an experiment is alive."""
    return _manager_process(experiment_id) is not None


@raise_on_signals()
def _run(
    command: Sequence[str],
    experiment_id: str | None,
    options: ManagerOptions,
    num_candidates: int,
    report: Callable[[str], None],
) -> StartResult:
    _check_port(options.port)
    if not (options.public or knows_users()):
        report(f"warning: {OPEN_TO_USERS}")
    manager = Manager(options.port)
    command = [*command, "--port", str(options.port)]
    announce("starting NNI's manager")
    try:
        # nnictl leaves nothing behind if it fails. If it does not, it is known what to stop.
        with deferred_signals():
            output = _nnictl(command, nnictl_environment(options.public))
            experiment_id = experiment_id or _created(output) or _wait_for_id(manager)
        host = socket.gethostname() if options.public else "127.0.0.1"
        address = f"http://{host}:{options.port}"
        report(f"experiment {experiment_id}, web page {address}")
        result = _finish(manager, experiment_id, num_candidates, report)
        if not options.keep:
            stop(experiment_id)
    except BaseException:  # also Ctrl-C and SIGTERM: nothing is left running
        if experiment_id:
            with deferred_signals():
                stop(experiment_id)
        raise
    if options.keep and result.status == "DONE":
        report(f"the web page keeps running. To end it: nnictl stop {experiment_id}")
    return result


def _finish(
    manager: Manager, experiment_id: str, num_candidates: int, report: Callable[[str], None]
) -> StartResult:
    """Wait for the end of an experiment. Raises ExperimentError if it failed."""
    folder = experiment_folder(experiment_id)
    status, errors = _follow(manager, experiment_id, folder, num_candidates, report)
    reason = ""
    if status == "ERROR":
        reason = explain_failure(folder, errors)
    elif status == "STOPPED":
        reason = explain_stop(folder)
    else:
        reason = explain_no_result(folder)
    if reason:
        raise ExperimentError(f"experiment {experiment_id} failed: {reason}")
    return StartResult(experiment_id, status, folder)


def _follow(
    manager: Manager,
    experiment_id: str,
    folder: FilePath,
    num_candidates: int,
    report: Callable[[str], None],
) -> tuple[str, list[str]]:
    """Show progress and warnings of an experiment until it ends; return its status and errors."""
    last_answer = time.monotonic()
    process = _manager_process(experiment_id)
    while process is None and time.monotonic() - last_answer < LIST_TIMEOUT:
        time.sleep(0.2)
        process = _manager_process(experiment_id)
    num_notes = 0
    with open_bar("search", num_candidates, "candidate") as bar:
        while True:
            try:
                status, errors = manager.status()
                last_answer = time.monotonic()
            except ExperimentError as problem:
                status, errors, lost = "UNKNOWN", [], problem
            # Asked after it answered: when a manager is gone, anybody can take its port.
            if process is None or not is_alive(process):
                return "STOPPED", []
            if time.monotonic() - last_answer > LOST_AFTER:
                raise lost
            begin = time.monotonic()
            _show(bar, folder)
            notes = read_run_record(search_of_experiment(folder)).notes
            for note in notes[num_notes:]:
                report(f"warning: {note}")
            num_notes = len(notes)
            reading = time.monotonic() - begin
            if status in ("DONE", "ERROR", "STOPPED"):
                return status, errors
            # The journal grows: reading it may not take all of a processor.
            time.sleep(max(1.0, 9 * reading))


def _show(bar: tqdm[None], folder: FilePath) -> None:
    try:
        results = load_results(folder)
    except ExperimentError:
        return
    shown = {}
    if results.num_done:
        objective = results.objective
        shown[f"best {objective}"] = f"{results.best.metrics[objective]:.2f}"
    if results.num_failed:
        shown["failed"] = str(results.num_failed)
    bar.set_postfix(shown, refresh=False)
    bar.update(len(results.candidates) - bar.n)
    if sys.stderr.isatty():
        bar.refresh()  # the time goes on


def _nnictl(arguments: Sequence[str], environment: dict[str, str]) -> str:
    """Run ``nnictl`` to its end, in a session of its own so that Ctrl-C cannot cut it short."""
    done = subprocess.run(
        python_command("nni_spos.experiment.nnictl", arguments),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        raise ExperimentError(f"nnictl {arguments[0]} failed: {_reason(done.stdout)}")
    return done.stdout


def _reason(output: str) -> str:
    """Pick the line of nnictl's output that says most."""
    lines = [line.strip() for line in _plain(output).splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    stated = [line for line in lines if line.startswith("ERROR")]
    return (errors or stated or lines or ["no message"])[-1]


def _created(output: str) -> str | None:
    """Find the id of the new experiment in nnictl's output."""
    found = re.search(r"Experiment ID: (\w+)", _plain(output))
    return found[1] if found else None


def _plain(output: str) -> str:
    """Return a text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", output)


def _wait_for_id(manager: Manager, timeout: float = 30.0) -> str:
    end = time.monotonic() + timeout
    while True:
        try:
            return str(manager.experiment()["id"])
        except ExperimentError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise ExperimentError(f"--port: must be a number from 1024 to 65535, got {port}.")
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.settimeout(1.0)
                in_use = probe.connect_ex((host, port)) == 0
        except OSError:  # no IPv6
            continue
        if in_use:
            raise ExperimentError(f"port {port} is in use. Choose another, e.g. --port {port + 1}.")


def _manager_process(experiment_id: str) -> psutil.Process | None:
    """Return the process of an experiment's manager, or None if it is gone."""
    pid = (read_manifest().get(experiment_id) or {}).get("pid")
    try:
        process = psutil.Process(pid) if pid else None
        if process is None or process.status() == psutil.STATUS_ZOMBIE:
            return None
        # The number may have been given to another process since.
        return process if experiment_id in process.cmdline() else None
    except psutil.Error:
        return None


def _num_candidates(experiment_id: str) -> int:
    """Return the number of candidates of an earlier run's search, 0 if it is not known."""
    try:
        search = load_results(experiment_id).settings["search"]
    except (ExperimentError, KeyError):
        return 0
    return int(search["population_size"]) * int(search["num_generations"])
