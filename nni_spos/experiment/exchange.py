"""The trial's side of an NNI experiment: which path to evaluate, and where the result goes.

NNI 3.0 keeps one queue of parameters for all trials: whichever trial asks first gets the next
one, while the manager's records, its web page and its exports show another. With more than one
trial at a time most rows are wrong. So a trial must not ask: it reads its own record instead,
and the queue is never emptied, which costs nothing. The evaluated path is also part of the
reported result, so that it never depends on NNI's book-keeping.

A trial on another machine has only the address of its keeper, NNI's process there, which has no
records. The keeper's configuration has the manager's address.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import psutil

from nni_spos.errors import ExperimentError, FailedPathError
from nni_spos.experiment.manager import FINAL, INTERMEDIATE, Manager, TrialJob
from nni_spos.experiment.trial_objective import objectives_of
from nni_spos.files.atomic import read_json
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.process.nni_processes import manager_process
from nni_spos.scoring.failures import explain
from nni_spos.search.nni_results import DEFAULT, to_nni

RECORD_TIMEOUT = 30.0
"""Seconds to wait for the record; the manager writes it a moment after it starts the trial."""

PLATFORMS = ("local", "remote")
"""NNI's training services whose trials can find their record."""

MEMORY = "memory"
"""Name under which a trial reports what its evaluation needed; it is no metric of the path."""

PROBLEM = "problem"
"""Name under which a trial reports, without a result, why it has none, and not for its path."""

FAILED = "failed"
"""Name under which a trial reports, without a result, why its path cannot be scored."""

AGAIN = "again"
"""Name under which a trial reports that it is run again: what it reported before is void."""

LOST_AFTER = 5.0
"""Seconds without an answer after which the manager counts as gone."""


@dataclass(frozen=True)
class TrialContext:
    """A trial that knows its path.

    Parameters
    ----------
    path
        What to evaluate, label to choice.
    job_id
        NNI's id of the trial.
    parameter_id
        Id under which the tuner issued the path.
    """

    path: Path
    job_id: str
    parameter_id: int | None

    def report_error(self, problem: Exception) -> None:
        """Report what keeps this trial from a result, before it fails.

        For a FailedPathError the path fails; for any other the search stops, until it is resumed.

        Raises
        ------
        ExperimentError
            The manager cannot be reached.
        """
        # Not as its result: a resumed experiment runs the trial again if it has none.
        name = FAILED if isinstance(problem, FailedPathError) else PROBLEM
        self._send({name: explain(problem, self.path)}, INTERMEDIATE)

    def begin_again(self) -> None:
        """Report that what an earlier run of this trial reported is void."""
        self._send({AGAIN: True}, INTERMEDIATE)

    def report(self, metrics: Mapping[str, Any]) -> None:
        """Report the final result, once.

        The manager is told directly: ``import nni`` takes a trial more time than all the rest,
        and the parameter id that it would report is that of the wrong queue.

        Parameters
        ----------
        metrics
            Results by name; ``default`` is what NNI shows and may be left out if there is the
            objective of the recipe's task, such as ``top1``. The path is added. Values are JSON's,
            or numbers of NumPy or PyTorch.

        Raises
        ------
        ExperimentError
            There is neither ``default`` nor the objective, a value is of another kind, or the
            manager cannot be reached.
        """
        value = to_nni(metrics, DEFAULT if DEFAULT in metrics else self._result_in(metrics))
        self._send({**value, "path": dict(self.path)})

    def _result_in(self, metrics: Mapping[str, Any]) -> str:
        """Return which of some metrics is the result. Raises ExperimentError."""
        try:
            names = objectives_of(open_manager().experiment().get("params", {}))
        except ExperimentError as problem:
            raise ExperimentError(f"the result cannot be reported: {problem}") from None
        if found := [name for name in names if name in metrics]:
            return found[0]
        needed = " or ".join(repr(name) for name in (DEFAULT, *names))
        raise ExperimentError(f"a result needs {needed}; got {', '.join(metrics) or 'nothing'}.")

    def _send(self, value: Mapping[str, Any], kind: str = FINAL) -> None:
        try:
            text = json.dumps(value, default=lambda number: number.item())
        except (AttributeError, TypeError, ValueError, RuntimeError) as problem:
            raise ExperimentError(f"the result is not made of numbers ({problem}).") from None
        channel = os.environ["NNI_TRIAL_COMMAND_CHANNEL"]
        try:
            Manager.from_channel(channel).report(
                self.job_id, self.parameter_id, text, channel, kind
            )
        except ExperimentError as problem:
            raise ExperimentError(f"the result cannot be reported: {problem}") from None


def reported_error(manager: Manager, job_id: str) -> tuple[str, str] | None:
    """Return what a trial reported in place of a result, see `TrialContext.report_error`.

    Returns
    -------
    `PROBLEM` or `FAILED`, and the reason; None if it said nothing since it was last run.
    """
    for value in reversed(manager.intermediate_results(job_id)):
        for name in (AGAIN, PROBLEM, FAILED) if isinstance(value, Mapping) else ():
            if name in value:
                return None if name == AGAIN else (name, str(value[name]))
    return None


def open_trial(
    space: PathSpace | None = None, timeout: float = RECORD_TIMEOUT
) -> TrialContext | None:
    """Find out, in a process that NNI started as a trial, which path it is to evaluate.

    A manager that was killed may not have noticed the end of a trial whose result it has. When
    the experiment is resumed it runs such a trial again, which has nothing to do.

    Parameters
    ----------
    space
        If given, the path is checked against it, and numbers get back their type.
    timeout
        Seconds to wait for the manager's record of this trial.

    Returns
    -------
    The trial; None if it reported its result before the experiment was resumed.

    Raises
    ------
    ExperimentError
        This process is not a trial, or the record cannot be read.
    PathError
        The path is not one of the space.
    """
    platform = os.environ.get("NNI_PLATFORM")
    job_id = os.environ.get("NNI_TRIAL_JOB_ID")
    channel = os.environ.get("NNI_TRIAL_COMMAND_CHANNEL")
    if not (platform and job_id and channel):
        raise ExperimentError(
            "this is not a trial of an NNI experiment. Start one with 'nni-spos start CONFIG' or "
            "'nnictl create'."
        )
    if platform not in PLATFORMS:
        raise ExperimentError(
            f"trials on the training service '{platform}' cannot read which path they are to "
            "evaluate; use 'trainingService: {platform: local}' or 'remote'."
        )
    manager = open_manager()
    job = _read_record(manager, job_id, timeout)
    if manager.has_reported(job_id):
        print(f"trial {job_id} has reported its result before; nothing to do")
        return None
    assert job.parameters is not None
    path = job.parameters
    if space is not None:
        path = space.validate(restore_numbers(path, space))
    trial = TrialContext(path, job_id, job.parameter_id)
    if reported_error(manager, job_id) is not None:
        trial.begin_again()
    return trial


def runs_elsewhere() -> bool:
    """Whether this process is a trial on another machine than the manager's."""
    return os.environ.get("NNI_PLATFORM") == "remote"


def open_manager() -> Manager:
    """Return the manager of the experiment that this process is a trial of.

    Raises
    ------
    ExperimentError
        The trial is on another machine, and what its keeper was told cannot be read.
    """
    if not runs_elsewhere():
        return Manager.from_channel(os.environ["NNI_TRIAL_COMMAND_CHANNEL"])
    # ENVIRONMENT/trials/JOB is the trial's; a resumed experiment has another keeper there.
    environment = FilePath(os.environ["NNI_OUTPUT_DIR"]).parents[1]
    files = list(environment.glob("trial_keeper*/trial_keeper_config.json"))
    if not files:
        raise ExperimentError(f"{environment}: NNI's trial keeper left no configuration here.")
    # The folder is an argument of the keeper above this process, where that can be seen. The latest
    # file need not be this keeper's: the clock may have been set.
    keeper, words = manager_process(), set[str]()
    with contextlib.suppress(psutil.Error):
        words = {FilePath(word).name for word in (keeper.cmdline() if keeper else ())}
    own = [file for file in files if file.parent.name in words]
    file = max(own or files, key=lambda file: file.stat().st_mtime_ns)
    content = read_json(file, ExperimentError)
    channel = content.get("managerCommandChannel") if isinstance(content, dict) else None
    if not isinstance(channel, str):
        raise ExperimentError(f"{file}: does not say where the NNI manager is.")
    return Manager.from_channel(channel)


def restore_numbers(path: Mapping[str, Any], space: PathSpace) -> dict[str, Any]:
    """Undo what JavaScript does to numbers: the choice 1.0 comes back from NNI as 1.

    Choices that are of the space, or have no numeric twin in it, stay as they are.

    Examples
    --------
    >>> restore_numbers({"ratio": 1, "kernel": 3}, PathSpace({"ratio": [0.5, 1.0], "kernel": [3]}))
    {'ratio': 1.0, 'kernel': 3}
    """
    return {label: _restored(value, space.get(label, ())) for label, value in path.items()}


def _restored(value: Any, choices: tuple[Choice, ...]) -> Any:
    if type(value) is int and not any(type(x) is int and x == value for x in choices):
        return next((x for x in choices if type(x) is float and x == value), value)
    return value


def _read_record(manager: Manager, job_id: str, timeout: float) -> TrialJob:
    begin = last_answer = time.monotonic()
    while True:
        try:
            job = manager.trial_job(job_id)
            reason = "it has no record of it."
            last_answer = time.monotonic()
        except ExperimentError as problem:
            job, reason = None, str(problem)
        if job is not None and isinstance(job.parameters, dict):
            return job
        now = time.monotonic()
        if now - begin >= timeout or now - last_answer >= min(timeout, LOST_AFTER):
            raise ExperimentError(
                f"the NNI manager does not say which path trial {job_id} is to evaluate: {reason}"
            )
        time.sleep(0.2)
