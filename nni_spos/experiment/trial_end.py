"""What the end of a trial without a result means: its path failed, or something else did.

``nni-spos trial`` reports why it ends. If it reports nothing, that tells nothing about the path.
Of another command only its exit code and its error output are known, and NNI counts such a trial
as failed. So does the search.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path as FilePath

from nni_spos.errors import SearchError, one_line
from nni_spos.experiment.exchange import FAILED, reported_error
from nni_spos.experiment.manager import SUCCEEDED, Manager, TrialJob
from nni_spos.experiment.trial_command import trial_recipe
from nni_spos.scoring.failures import shown_path

NO_RESULT = "the trial ended without a result"
"""Why a path fails if NNI has no record of its trial."""

NO_REPORT = (
    "the trial ended without an error and without a result: a call of report is missing, e.g. "
    "nni_spos.experiment.exchange.open_trial().report({'default': VALUE})"
)
"""Why a path fails if its trial's command succeeds and reports nothing."""

LAST_BYTES = 4096
"""How much of the end of a file is read to find its last line."""


@dataclass(frozen=True)
class TrialEnds:
    """Judge how trials of an experiment ended.

    Parameters
    ----------
    manager
        Has what they reported.
    folder
        The experiment's.
    command
        What NNI runs for each of them.
    """

    manager: Manager
    folder: FilePath
    command: str

    def reason(self, job: TrialJob) -> str:
        """Return why the path of a trial without a result fails.

        Raises
        ------
        SearchError
            It is not the path that failed. The search stops until the cause is repaired.
        ExperimentError
            The manager does not answer.
        """
        said = reported_error(self.manager, job.id)
        if said is None:
            words = self._last_words(job)
            if self.report_errors:
                raise self._stop(job, f"ended without a result or a reason{words}")
            return (NO_REPORT if job.status == SUCCEEDED else "the trial failed") + words
        kind, reason = said
        if kind == FAILED:
            return reason
        raise self._stop(job, f"failed, and not for its path: {reason.rstrip('.')}")

    def reason_of_kills(self, job: TrialJob, number: int) -> str:
        """Return why a path fails whose trials were all killed. Raises SearchError as `reason`."""
        if not self.report_errors:
            return f"the trial was killed {number} times{self._last_words(job)}"
        raise self._stop(job, f"was killed, as {number - 1} before it, perhaps for want of memory")

    def advise(self, problem: SearchError) -> SearchError:
        """Add what to do to an error that all trials had."""
        if self.report_errors:
            return problem
        return SearchError(
            f"{str(problem).rstrip('.')}. No trial of the command '{self.command}' gave a result. "
            "Mend the command and start a new experiment."
        )

    @property
    def report_errors(self) -> bool:
        """Whether the trials say why they end, if they have no result."""
        return trial_recipe(self.command) is not None

    def _stop(self, job: TrialJob, what: str) -> SearchError:
        where = f"trial {job.id}, of the path '{shown_path(job.parameters or {})}',"
        todo = f"Mend that, then go on with: nni-spos resume {self.folder.name}"
        return SearchError(f"{where} {what}. {todo}")

    def _last_words(self, job: TrialJob) -> str:
        """Return the last line of a trial's error output, if it ran here, and where the rest is."""
        for file in self.folder.glob(f"environments/*/trials/{job.id}/trial.stderr"):
            with contextlib.suppress(OSError):
                lines = _end(file).splitlines()
                words = next((one_line(x) for x in reversed(lines) if x.strip()), "")
                return f"; its last words: {words or 'none'} (see {file})"
        folder = self.folder / "environments"
        return (
            f" (see trial.stderr of trial {job.id}, below {folder} or on the machine where it ran)"
        )


def _end(file: FilePath) -> str:
    with open(file, "rb") as stream:
        stream.seek(max(0, file.stat().st_size - LAST_BYTES))
        return stream.read().decode(errors="replace")
