"""Which trial evaluates which path, whatever becomes of the trials.

Between the search, which knows paths only, and NNI, which knows numbered requests and trials:
the scheduler hands the search's paths to the requests, and tells the search what came out, in
any order and also when results come late, twice, under another number or not at all. It knows
neither NNI nor threads; the tuner calls it under a lock.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nni_spos.errors import PathError
from nni_spos.evolution import Candidate, Journal, Search, Signal, State
from nni_spos.experiment.exchange import MEMORY, restore_numbers
from nni_spos.path import Path, PathKey
from nni_spos.scoring.notes import NOTES
from nni_spos.search.nni_results import RESULT, from_nni
from nni_spos.values import SHOWN, is_finite, shown

_logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Trials of a path that are killed before it fails: it may be the path that gets them killed."""


@dataclass
class Trial:
    """A path that was handed out.

    Parameters
    ----------
    path
        What the trial is to evaluate.
    key
        The same as positions, to compare it at once.
    ended_at
        When the trial ended without a result, None while it runs.
    """

    path: Path
    key: PathKey
    ended_at: float | None = None


class Scheduler:
    """Hand paths to requests and results to the search.

    Parameters
    ----------
    search
        A new search, never asked.
    journal
        Where every outcome is recorded; those already in it are not evaluated again.

    Attributes
    ----------
    trials : dict of parameter id to Trial
        Paths handed out whose trials have not ended, or have ended without a result yet.
    adopted : dict of path key to path
        Paths that trials of an earlier run of the manager are evaluating.
    """

    def __init__(self, search: Search, journal: Journal, result: str = RESULT):
        self.search = search
        self.journal = journal
        self._result = result
        self.trials: dict[int, Trial] = {}
        self.adopted: dict[PathKey, Path] = {}
        self._requests: deque[int] = deque()
        self._queue: deque[Path] = deque()
        self._num_killed: Counter[PathKey] = Counter()
        self._signal = Signal.WAIT
        self._unrecorded: dict[PathKey, Path] = {}
        for path, outcome in journal.outcomes:
            search.remember(path, outcome)
        self._recorded = {search.space.key(path) for path, _ in journal.outcomes}

    def recall(self, path: Mapping[str, Any], outcome: Any) -> None:
        """Take a trial of an earlier run that is not in the journal.

        Parameters
        ----------
        path
            What it evaluated.
        outcome
            The metrics that it reported, or the reason of its failure as text.
        """
        try:
            if isinstance(outcome, str):
                path = self._valid(path)
            else:
                path, outcome = self._split(path, outcome)
                outcome = self._problem(outcome) or outcome
        except PathError as problem:
            _logger.warning("an earlier trial is not one of this search: %s", problem)
            return
        key = self.search.space.key(path)
        if key in self._recorded:
            return
        self.search.remember(path, outcome)
        self._unrecorded[key] = path

    def adopt(self, path: Mapping[str, Any]) -> None:
        """Take a path that a trial of an earlier run is evaluating: it is not handed out."""
        try:
            path = self._valid(path)
        except PathError as problem:
            _logger.warning("a running trial is not one of this search: %s", problem)
            return
        key = self.search.space.key(path)
        if key not in self._recorded:
            self.adopted[key] = path

    def request(self, parameter_ids: Iterable[int]) -> None:
        """Take requests for paths; they wait until there is one for each."""
        self._requests.extend(parameter_ids)

    def hand_out(self) -> list[tuple[int, Path]]:
        """Match paths with waiting requests, as many as there are of both.

        Raises
        ------
        SearchError
            The search cannot go on.
        """
        self._ask()
        handed: list[tuple[int, Path]] = []
        while self._queue and self._requests:
            path = self._queue.popleft()
            if self._is_pending(path):  # else the result of a killed trial came late
                parameter_id = self._requests.popleft()
                self.trials[parameter_id] = Trial(path, self.search.space.key(path))
                handed.append((parameter_id, path))
        return handed

    @property
    def is_finished(self) -> bool:
        """Whether the search is over and every trial has ended."""
        over = self._signal is Signal.FINISHED
        return over and not (self._queue or self.trials or self.adopted)

    @property
    def is_idle(self) -> bool:
        """Whether requests wait and no path does: perhaps no trial runs any more."""
        return bool(self._requests) and not self._queue and not self.is_finished

    def take(self, metrics: Any, parameter_id: int | None = None, path: Any = None) -> None:
        """Take a result, early, late, again or never asked for.

        Parameters
        ----------
        metrics
            As reported: a mapping, best with the evaluated path under ``path``, or one number.
        parameter_id
            Id that the result came under, if it is one of this run.
        path
            Path that NNI believes was evaluated, used if the metrics do not say.
        """
        trial = None if parameter_id is None else self.trials.get(parameter_id)
        if trial is None and parameter_id is not None:
            _logger.warning("a result came under the unknown parameter id %s", parameter_id)
        issued = trial.path if trial else path
        try:
            reported, metrics = self._split(issued, metrics)
        except PathError as problem:
            _logger.warning("a result is not for a path of the space: %s", problem)
            if trial:
                self._fail(trial.path, f"the trial reported another path: {problem}")
            return
        if trial and self.search.space.key(reported) != trial.key:
            _logger.warning(
                "parameter id %s: the trial evaluated %s instead of %s; the result counts for "
                "the former",
                parameter_id,
                reported,
                trial.path,
            )
            self._exchange(trial, reported)
        self._tell(reported, metrics)

    def end(self, parameter_id: int, now: float) -> None:
        """Note the end of a trial; without a result it is given up only by `give_up`."""
        trial = self.trials.get(parameter_id)
        if trial is None:
            _logger.warning("a trial with the unknown parameter id %s ended", parameter_id)
        elif self._is_pending(trial.path):
            trial.ended_at = now
        else:
            del self.trials[parameter_id]

    def overdue(self, ended_before: float) -> dict[int, Path]:
        """Return, by parameter id, the paths of trials that ended by then without a result."""
        return {
            parameter_id: trial.path
            for parameter_id, trial in self.trials.items()
            if trial.ended_at is not None and trial.ended_at <= ended_before
        }

    def give_up(self, reasons: Mapping[int, str]) -> None:
        """Fail the paths of trials that ended without a result, unless that came meanwhile.

        Parameters
        ----------
        reasons
            Why, by parameter id.
        """
        for parameter_id, reason in reasons.items():
            trial = self.trials.pop(parameter_id, None)
            if trial is not None:
                self._fail(trial.path, reason)

    def retry(self, path: Mapping[str, Any]) -> bool:
        """Hand a path out again whose trial was killed.

        Returns
        -------
        Whether it is; else `ATTEMPTS` of its trials were killed.
        """
        path = self._valid(path)
        key = self.search.space.key(path)
        self._forget(path)
        if not self._is_pending(path):
            return True  # its result came, or the search has not proposed it yet
        self._num_killed[key] += 1
        if self._num_killed[key] >= ATTEMPTS:
            return False
        _logger.warning("a trial was killed; its path is handed out again: %s", path)
        self._queue.appendleft(path)
        return True

    def settle(self, path: Mapping[str, Any], outcome: Any) -> None:
        """Take what became of a trial whose end NNI did not announce.

        Parameters
        ----------
        path
            What was handed out, or adopted.
        outcome
            The metrics that it reported, or the reason of its failure as text.
        """
        if not isinstance(outcome, str):
            self.take(outcome, path=path)
            outcome = "the trial reported another path"
        path = self._valid(path)
        self._fail(path, outcome)
        self._forget(path)

    def _ask(self) -> None:
        generation = self.search.generation
        while not isinstance(answer := self.search.ask(), Signal):
            if self.search.space.key(answer) not in self.adopted:
                self._queue.append(answer)
        self._signal = answer
        if self.search.generation > generation:
            self._record_recalled()

    def _record_recalled(self) -> None:
        """Record the recalled outcomes of candidates that are proposed by now."""
        for key, path in list(self._unrecorded.items()):
            candidate = self.search.find(path)
            if candidate is not None:
                self._record(candidate)
                del self._unrecorded[key]

    def _tell(self, path: Path, metrics: Mapping[str, Any]) -> None:
        key = self.search.space.key(path)
        self.adopted.pop(key, None)
        candidate = self.search.find(path)
        problem = self._problem(metrics)
        if candidate is None:
            if key not in self._unrecorded and key not in self._recorded:
                _logger.warning("a result came for a path that was never handed out: %s", path)
                self.recall(path, metrics)
        elif candidate.state is State.DONE:
            _logger.info("a second result of a path is ignored: %s", path)
        elif problem:
            self._fail(path, problem)
        else:
            self._record(self.search.tell(path, metrics))

    def _fail(self, path: Mapping[str, Any], reason: str) -> None:
        if self._is_pending(path):
            _logger.warning("%s: %s", reason, path)
            self._record(self.search.tell_failure(path, reason))

    def _record(self, candidate: Candidate) -> None:
        self.journal.append(candidate)
        self._recorded.add(self.search.space.key(candidate.path))

    def _forget(self, path: Path) -> None:
        """Expect nothing more of the trials of a path."""
        key = self.search.space.key(path)
        self.adopted.pop(key, None)
        for parameter_id, trial in list(self.trials.items()):
            if trial.key == key:
                del self.trials[parameter_id]

    def _is_pending(self, path: Mapping[str, Any]) -> bool:
        candidate = self.search.find(path)
        return candidate is not None and candidate.state is State.PENDING

    def _exchange(self, trial: Trial, reported: Path) -> None:
        """Let `trial` stand for the path that it evaluated, and its holder for the other."""
        key = self.search.space.key(reported)
        for other in self.trials.values():
            if other.key == key:
                other.path, other.key, trial.path, trial.key = (
                    trial.path,
                    trial.key,
                    other.path,
                    other.key,
                )
                return

    def _split(self, issued: Any, metrics: Any) -> tuple[Path, dict[str, Any]]:
        """Return the path that metrics are for, and the metrics without it. Raises PathError."""
        if isinstance(metrics, Mapping):
            metrics = dict(metrics)
            issued = metrics.pop("path", issued)
            for name in (MEMORY, NOTES):
                metrics.pop(name, None)
        return self._valid(issued), from_nni(metrics, self._result)

    def _valid(self, path: Any) -> Path:
        space = self.search.space
        return space.validate(restore_numbers(path, space) if isinstance(path, Mapping) else path)

    def _problem(self, metrics: Mapping[str, Any]) -> str | None:
        """Say why metrics cannot be used, or return None."""
        objective = self.search.objective
        if not is_finite(metrics.get(objective)):
            return f"the trial reported {objective} = {shown(metrics.get(objective))}"
        for name, value in metrics.items():
            if not _can_be_kept(value):
                return f"the trial reported {str(name)[:SHOWN]} = {shown(value)}"
        return None


def _can_be_kept(value: Any) -> bool:
    """Whether a value can be written into the journal, and is read there as the same."""
    if isinstance(value, int | float):
        return isinstance(value, bool) or is_finite(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
