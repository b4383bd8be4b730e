"""Why an NNI experiment failed, as its logs and its journal say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

from nni_spos.errors import ExperimentError
from nni_spos.evolution.reasons import MOST_REASONS, distinct_reasons
from nni_spos.search.results import load_results

REPORTED = "Dispatcher error: "
"""What stands in the manager's log before an error of the tuner."""

START = "Start NNI manager"
"""First line that each run of the manager writes into its log."""

REMOTE_FAILURE = "Training srevice initialize failed: "
"""What stands there before the reason that a machine cannot be used. The typing error is NNI's."""

TOO_SLOW = (
    "it did not connect in time and left no error. nni-spos waits two minutes, NNI alone ten "
    "seconds. If the machine is busy, end other processes or set a lower trialConcurrency, and "
    "start again"
)
"""What is said of a tuner that did not start and left no traceback."""


def explain_failure(folder: FilePath, errors: Sequence[str]) -> str:
    """Return in one line why an experiment ended with status ERROR, and the log that says so.

    Parameters
    ----------
    folder
        The experiment's folder.
    errors
        What the manager says. It is hardly more than "tuner may have crashed".
    """
    manager_log = folder / "log" / "nnimanager.log"
    dispatcher_log = folder / "log" / "dispatcher.log"
    if any("did not connect" in error for error in errors):
        for log in (dispatcher_log, folder / "log" / "nnictl_stderr.log"):
            lines = [line for line in _lines(log) if "did not connect" not in line]
            if reason := _last_error(lines):
                return f"the tuner did not start: {reason} (see {log})"
        return f"the tuner did not start: {TOO_SLOW} (see {dispatcher_log})"
    if reason := reported_error(_last_run(manager_log)):
        return f"{reason} (see {manager_log})"
    stated = "; ".join(errors) or "no reason given"
    return f"{stated} (see {manager_log} and {dispatcher_log})"


def explain_stop(folder: FilePath) -> str:
    """Return in one line why a manager stopped by itself; ``""`` if somebody stopped it.

    It stops by itself if it cannot use one of the machines of the trials.
    """
    manager_log = folder / "log" / "nnimanager.log"
    for line in _last_run(manager_log):
        if REMOTE_FAILURE in line:
            reason = line.partition(REMOTE_FAILURE)[2].removeprefix("Error: ")
            return f"a machine of the trials cannot be used: {reason} (see {manager_log})"
    return ""


def explain_no_result(folder: FilePath) -> str:
    """Return in one line why a finished experiment has no result; ``""`` if it has one."""
    try:
        found = load_results(folder)
    except ExperimentError as problem:
        return str(problem)
    if found.num_done:
        return ""
    reasons = distinct_reasons(found.candidates)
    why = f" Reasons: {'; '.join(reasons[:MOST_REASONS])}." if reasons else ""
    return f"none of its {len(found.candidates)} candidates has a result.{why} (see {folder})"


def reported_error(lines: Sequence[str]) -> str:
    """Return the last line of the tuner's first traceback in a log, or ``""``.

    Examples
    --------
    >>> reported_error(["[date] ERROR (NNIManager) Dispatcher error: Traceback (most recent call"
    ...     " last):", '  File "x.py", line 1, in f', "nni_spos.errors.PathError: no such label.",
    ...     "", "[date] INFO (NNIManager) next"])
    'PathError: no such label.'
    """
    start = next((i for i, line in enumerate(lines) if REPORTED in line), None)
    if start is None:
        return ""
    block = []
    for line in lines[start + 1 :]:
        if line.startswith("["):
            break
        block.append(line)
    return _last_error(block) or lines[start].partition(REPORTED)[2]


def _last_error(lines: Sequence[str]) -> str:
    """Return the last line that names an error and its text, or ``""``."""
    for line in reversed(lines):
        kind, colon, text = line.partition(": ")
        is_name = kind.replace(".", "").replace("_", "").isalnum() and not kind[0].isdigit()
        if colon and is_name and kind.rpartition(".")[2][:1].isupper():
            return f"{kind.rpartition('.')[2]}: {text.strip()}"
    return ""


def _last_run(manager_log: FilePath) -> list[str]:
    """Return what the manager's last run wrote. The log has the lines of all its runs."""
    lines = _lines(manager_log)
    starts = [number for number, line in enumerate(lines) if START in line]
    return lines[starts[-1] :] if starts else lines


def _lines(file: FilePath) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
