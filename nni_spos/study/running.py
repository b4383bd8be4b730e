"""Run the steps of an experiment, each in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath

import yaml

from nni_spos.display.numbers import format_duration
from nni_spos.errors import ExperimentError
from nni_spos.files.atomic import write_json, write_text
from nni_spos.files.locks import exclusive
from nni_spos.process.child import python_command
from nni_spos.process.termination import Terminated, raise_on_signals
from nni_spos.study.planning import Plan, PlannedStep
from nni_spos.study.results import write_results

INTERRUPTED = (130, -signal.SIGINT)
"""Exit codes of a command that Ctrl-C ended."""

INTERRUPT_TIMEOUT = 30.0
"""Seconds that a step may take to end after Ctrl-C, which it was sent as well."""


@raise_on_signals()
def run_plan(
    plan: Plan, only: Sequence[str] = (), report: Callable[[str], None] = print
) -> FilePath:
    """Do what is not done yet, then write the results.

    Parameters
    ----------
    plan
        What to do.
    only
        Names of steps: do these only.
    report
        Takes each line of what there is to say.

    Returns
    -------
    The Markdown file of the results; ``results.json`` is beside it.

    Raises
    ------
    RecipeError
        There is no such step.
    ExperimentError
        A step failed, or another process runs the experiment.
    """
    selected = plan.select(only)
    refusal = ExperimentError(f"{plan.output}: another process runs this experiment.")
    with exclusive(plan.output / ".lock", timeout=0, refusal=refusal):
        for name, content in plan.contents.items():
            text = yaml.safe_dump(dict(content), sort_keys=False)
            write_text(plan.recipes[name].file, text.rstrip())
        for number, step in enumerate(selected, start=1):
            where = f"step {number} of {len(selected)}, {step.name}"
            if step.seconds is not None:
                report(f"{where}: is done")
                continue
            estimate = format_duration(step.minutes * 60)
            report(f"{where}, about {estimate}: {step.command}")
            _run(step)
        return write_results(plan)


def _run(step: PlannedStep) -> None:
    """Run a step, and note that it is done. Raises ExperimentError."""
    sys.stdout.flush()
    begin = time.monotonic()
    # In a process of its own, so that its peak memory is that of the step.
    exit_code = _run_command(step.arguments)
    if exit_code in INTERRUPTED:
        raise KeyboardInterrupt
    if exit_code:
        raise ExperimentError(
            f"step '{step.name}' failed with exit code {exit_code}; its message is above. "
            "The same command goes on from here."
        )
    seconds = time.monotonic() - begin
    write_json(step.record, {"seconds": seconds, "made_for": step.made_for})


def _run_command(arguments: Sequence[str]) -> int:
    """Run ``nni-spos`` and return its exit code; never leave it running."""
    with subprocess.Popen(python_command("nni_spos.cli", arguments)) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as interrupt:
            # It may have processes of its own to end: a manager, a pool.
            if not isinstance(interrupt, Terminated):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(INTERRUPT_TIMEOUT)
            process.terminate()
            process.wait()
            raise
