"""Why an NNI experiment failed, found in its logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

from nni_spos.errors import ExperimentError
from nni_spos.experiment.results import load_results

REPORTED = "Dispatcher error: "
"""How the manager's log introduces an error that a tuner reported."""

START = "Start NNI manager"
"""What the manager's log says first; again each time that an experiment is resumed."""

REMOTE_FAILURE = "Training srevice initialize failed: "
"""How it introduces why they cannot be used; the spelling is NNI's."""


MOST_REASONS = 3
"""Reasons of failed candidates that are named."""

TOO_SLOW = (
    "it did not connect in time and left no error. nni-spos gives it two minutes, NNI alone ten "
    "seconds. If the machine is busy, start again when it is less so, with a lower "
    "trialConcurrency or fewer other processes"
)
"""Why a tuner without a traceback did not start, as far as anyone can know."""


def explain_failure(folder: FilePath, errors: Sequence[str]) -> str:
    """Return one line: the reason that an experiment ended with status ERROR, and where it is.

    Parameters
    ----------
    folder
        The experiment's folder.
    errors
        What the manager says, which is never more than "tuner may have crashed".
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
    """Return one line: why a manager stopped by itself; ``""`` if somebody stopped it.

    It does so if it cannot use one of the machines for the trials.
    """
    manager_log = folder / "log" / "nnimanager.log"
    for line in _last_run(manager_log):
        if REMOTE_FAILURE in line:
            reason = line.partition(REMOTE_FAILURE)[2].removeprefix("Error: ")
            return f"a machine of the trials cannot be used: {reason} (see {manager_log})"
    return ""


def explain_no_result(folder: FilePath) -> str:
    """Return one line: why nothing came of an experiment that NNI calls done; ``""`` if it did."""
    try:
        found = load_results(folder)
    except ExperimentError as problem:
        return str(problem)
    if found.num_done:
        return ""
    reasons = sorted({x.reason for x in found.candidates})
    why = f" Reasons: {'; '.join(reasons[:MOST_REASONS])}." if reasons else ""
    return f"none of its {len(found.candidates)} candidates has a result.{why} (see {folder})"


def reported_error(lines: Sequence[str]) -> str:
    """Return the last line of the first traceback that a tuner reported, or ``""``.

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
    """Return the last line that looks like the end of a traceback, or ``""``."""
    for line in reversed(lines):
        kind, colon, text = line.partition(": ")
        is_name = kind.replace(".", "").replace("_", "").isalnum() and not kind[0].isdigit()
        if colon and is_name and kind.rpartition(".")[2][:1].isupper():
            return f"{kind.rpartition('.')[2]}: {text.strip()}"
    return ""


def _last_run(manager_log: FilePath) -> list[str]:
    """Return the manager's lines since it was last started: a log has those of all its runs."""
    lines = _lines(manager_log)
    starts = [number for number, line in enumerate(lines) if START in line]
    return lines[starts[-1] :] if starts else lines


def _lines(file: FilePath) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
