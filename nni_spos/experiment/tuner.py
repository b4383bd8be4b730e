"""The search as a tuner of NNI, and everything that NNI 3.0 needs to get it right.

NNI's configuration names it so; `classArgs` are the recipe and, optionally, any key of the
recipe's section ``search``, which it overrides::

    tuner:
      codeDirectory: .
      className: nni_spos.experiment.tuner.EvolutionTuner
      classArgs:
        recipe: digits.yml        # relative to codeDirectory
        num_generations: 5

What is worked around, all of it measured with NNI 3.0:

- The manager asks once per free slot and once per ended trial, never again. So requests are kept
  until there is a path, across generations, and no slot is ever lost.
- Results and ends of trials come on different threads, in any order: hence the lock, and the
  grace between the end of a trial and giving up its result.
- An exception in a callback would hang the experiment for ever. It is reported to the manager,
  which ends with status ERROR and the traceback in ``log/nnimanager.log``.
- NNI never ends by itself when a tuner has nothing left. At the end `maxTrialNumber` is set to
  the number of trials there were.
- After a resume, trials that were cut off run again under their old ids, of which this tuner
  hears at most the result: it watches them through the manager's REST interface.
- A manager that is killed before it has run them again forgets these trials.
- NNI submits no trial a second time. One that was killed, which says nothing about its path, is
  followed by another one of the same path.
- On other machines trials read their paths from the same records as here. A result whose path is
  not the recorded one means that NNI's exports are wrong: it ends the experiment.
- The manager may be killed: a tuner left over would connect to the next manager on that port, or
  wait for ever for the channel of the first.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

from nni.tuner import Tuner

from nni_spos.costs.stored import load_costs
from nni_spos.errors import CheckpointError, ExperimentError, PathError, SearchError
from nni_spos.evolution import Journal
from nni_spos.experiment.beginning import Beginning
from nni_spos.experiment.dispatcher import accept_any_result
from nni_spos.experiment.exchange import MEMORY, restore_numbers
from nni_spos.experiment.manager import RESUMED, Manager, TrialJob
from nni_spos.experiment.scheduler import ATTEMPTS, Scheduler
from nni_spos.experiment.shared_supernet import publish_supernet
from nni_spos.experiment.trial_end import NO_RESULT, TrialEnds
from nni_spos.experiment.tuner_configuration import (
    check_space,
    code_directory,
    load_tuner_recipe,
    training_platform,
    trial_command,
)
from nni_spos.files.digests import digest_weights
from nni_spos.path import PathKey
from nni_spos.process.nni_processes import end_with_manager
from nni_spos.process.stage_cost import add_memory
from nni_spos.recipe.identity import WEIGHTS, Result, describe
from nni_spos.recipe.output import SearchFolder
from nni_spos.scoring.notes import reported_notes
from nni_spos.search.building import build_search, fingerprint
from nni_spos.search.kept_supernets import keep_for_experiment
from nni_spos.search.results import load_results
from nni_spos.search.run_record import RunRecorder
from nni_spos.search.unused_limit import unused_line
from nni_spos.values import DIGEST

_logger = logging.getLogger(__name__)


Method = TypeVar("Method", bound=Callable[..., Any])


def _guarded(method: Method) -> Method:
    """Run a method under the tuner's lock; report an exception instead of raising it."""

    @functools.wraps(method)
    def guarded(self: EvolutionTuner, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if self._failure is None:
                try:
                    return method(self, *args, **kwargs)
                except Exception:
                    self._failure = traceback.format_exc()
                    _logger.error("the search ends with an error\n%s", self._failure)
            self._report_failure()
            return None

    return guarded  # type: ignore[return-value]


class EvolutionTuner(Tuner):
    """Run a recipe's search, whatever its algorithm, in an NNI experiment.

    Parameters
    ----------
    **class_args
        ``recipe``, a file, relative to the configuration's `codeDirectory`; and keys of the
        recipe's section ``search`` to override.

    Notes
    -----
    Wrong arguments do not raise here: NNI would report "Tuner did not connect" ten seconds
    later and hide the reason. They end the experiment with status ERROR at the first request.
    """

    GRACE = 2.0
    """Seconds after the end of a trial in which its result may still come."""
    TICK = 0.5
    """Seconds between looks at trials that ended, or that only the manager knows about."""
    POLL = 2.0
    """Seconds between requests to the manager, at least."""
    PATIENCE = 30.0
    """Seconds until a trial that NNI was to run again, and has room for, is taken for forgotten."""
    PAUSE = 9.0
    """Pause after a request for all trials, in times of what it took: it grows with them."""

    def __init__(self, **class_args: Any):
        super().__init__()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._failure: str | None = None
        self._failure_reported = False
        self._send: Callable[[int, Any], Any] | None = None
        self._scheduler: Scheduler | None = None
        self._beginning: Beginning | None = None
        self._ended_jobs: set[str] = set()
        self._settled_jobs: set[str] = set()
        self._expected_since: dict[str, float] = {}
        self._is_closed = False
        self._read_arguments(class_args)

    @_guarded
    def _read_arguments(self, class_args: dict[str, Any]) -> None:
        self.recipe = load_tuner_recipe(class_args, code_directory())

    @_guarded
    def update_search_space(self, search_space: Any) -> None:
        """Start the search; called by NNI when it is connected. Later calls are refused."""
        if self._scheduler is not None:
            _logger.error("the search space of a running search cannot be changed; it goes on")
            return
        end_with_manager(self.TICK)
        accept_any_result()
        channel = os.environ["NNI_TUNER_COMMAND_CHANNEL"]
        self._manager = Manager.from_channel(channel)
        self._experiment_id = self._manager.experiment()["id"]
        # Before anything slow: trials of an earlier run may end while the tables are built.
        jobs = self._manager.trial_jobs() if os.environ.get("NNI_MODE") == "resume" else []
        space, costs = load_costs(self.recipe)
        check_space(search_space, space, self.recipe)
        self._keep_supernet()
        folder = SearchFolder(FilePath(os.environ["NNI_CHECKPOINT_DIRECTORY"]))
        journal = Journal(folder.journal, fingerprint(self.recipe, space, costs))
        self._journal = journal
        self._has_results = bool(journal.outcomes)
        search = build_search(self.recipe.search, space, costs)
        self._scheduler = Scheduler(search, journal, self.recipe.search.reported)
        self._recorder = RunRecorder(folder, self.recipe, len(journal.outcomes))
        self._recorded_at = time.monotonic()
        self._ends = TrialEnds(self._manager, folder.path.parent, trial_command())
        self._runs_elsewhere = training_platform() == "remote"
        if self._runs_elsewhere:
            publish_supernet(self.recipe, folder.path.with_name("log"))
        if self.recipe.search.sensitivity:
            weights = digest_weights(self.recipe.checkpoint)
            self._beginning = self._begin(folder, fingerprint(self.recipe, space, costs, weights))
        for job in jobs:
            self._recall(job)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._proceed()

    def generate_parameters(self, parameter_id: int, **kwargs: Any) -> Any:
        """Not used: see `generate_multiple_parameters`."""
        raise NotImplementedError("paths are sent through the callback")

    def generate_multiple_parameters(
        self, parameter_id_list: list[int], **kwargs: Any
    ) -> list[Any]:
        """Take requests and return nothing: paths are sent when there are some."""
        with self._lock:
            self._send = kwargs["st_callback"]
            self._request(parameter_id_list)
        return []

    @_guarded
    def _request(self, parameter_ids: list[int]) -> None:
        self._started.request(parameter_ids)
        self._proceed()

    @_guarded
    def receive_trial_result(
        self, parameter_id: int, parameters: Any, value: Any, **kwargs: Any
    ) -> None:
        """Take the result of a trial of this run."""
        self._check_model()
        if self._runs_elsewhere:
            self._check_record(kwargs["trial_job_id"], parameter_id, value)
        self._started.take(value, parameter_id=parameter_id, path=parameters or None)
        self._proceed()
        self._record_cost(value)

    @_guarded
    def trial_end(self, parameter_id: int, success: bool, **kwargs: Any) -> None:
        """Note the end of a trial of this run, with or without a result."""
        self._started.end(parameter_id, time.monotonic())
        self._proceed()

    @_guarded
    def import_data(self, data: list[Any]) -> None:
        """Take results of an earlier run, and those of its trials that are run again."""
        for entry in data:
            self._started.take(entry["value"], path=entry.get("parameter"))
        self._proceed()
        self._record_cost(None)

    def _on_exit(self) -> None:
        self._stopping.set()

    def _on_error(self) -> None:
        self._stopping.set()

    @property
    def _started(self) -> Scheduler:
        if self._scheduler is None:
            raise ExperimentError("NNI asked for a path before it gave the search space.")
        return self._scheduler

    def _recall(self, job: TrialJob) -> None:
        """Take a trial of an earlier run from the manager's records."""
        if job.has_ended:
            self._settled_jobs.add(job.id)
        if job.parameters is None:
            return
        if not job.has_ended:
            self._started.adopt(job.parameters)
        elif job.metrics is not None:
            self._started.recall(job.parameters, job.metrics)
        # A result of a failed trial comes through `import_data` before any request.
        elif not (job.was_killed or self._manager.has_reported(job.id)):
            with contextlib.suppress(SearchError):  # that ended the search; now it is mended
                self._started.recall(job.parameters, self._ends.reason(job))

    def _begin(self, folder: SearchFolder, depends_on: Any) -> Beginning | None:
        """Find what the search begins with; None if that cannot be found here, or it has begun."""
        if self._has_results and not folder.first_paths.exists():
            return None  # it began without
        if self._runs_elsewhere:
            self._begin_with_random_paths("trials are on other machines.")
        elif not self.recipe.checkpoint.exists():
            self._begin_with_random_paths("the supernet is not trained yet.")
        else:
            return Beginning(self.recipe, folder, depends_on)
        return None

    def _begin_with_random_paths(self, reason: object) -> None:
        text = f"sensitivity: {reason} The search begins with random paths."
        _logger.warning(text)
        self._recorder.note([text])

    def _keep_supernet(self) -> None:
        """Let the experiment have the supernet that it began with, whoever trains another."""
        try:
            self.recipe = keep_for_experiment(self.recipe, self._experiment_id)
        except CheckpointError as problem:
            _logger.warning("%s Trials that need it will fail.", problem)

    def _check_model(self) -> None:
        """Note what was not there yet when the search began, and that the supernet stays the same.

        Raises
        ------
        ExperimentError
            It was written into: results of two supernets are no search.
        """
        if self.recipe.kept is None:
            self._keep_supernet()  # the first trial may have trained it
        found = digest_weights(self.recipe.checkpoint)
        if found is None:
            return  # trials of the user's own may do without
        if not self._has_results:
            self._journal.complete(describe(Result.SEARCH, self.recipe))
            self._has_results = True
        before = self._journal.settings.get(WEIGHTS, {}).get(DIGEST)
        if before != found:
            raise ExperimentError(
                f"{self.recipe.checkpoint}: was written into during the search ({WEIGHTS} was "
                f"{before} and now is {found}). Start a new experiment."
            )

    def _check_record(self, job_id: str, parameter_id: int, value: Any) -> None:
        """Check that a trial evaluated the path that NNI's records, and its exports, have for it.

        Raises
        ------
        ExperimentError
            They differ; the message has both paths.
        """
        record = self._manager.trial_job(job_id)
        trial = self._started.trials.get(parameter_id)
        issued = trial.path if trial else None
        evaluated = value.get("path", issued) if isinstance(value, Mapping) else issued
        if record is None or not record.parameters or not isinstance(evaluated, Mapping):
            _logger.warning("trial %s: there is no record to compare its result with", job_id)
            return
        space = self._started.search.space
        evaluated, recorded = (restore_numbers(x, space) for x in (evaluated, record.parameters))
        if evaluated != recorded:
            ours, theirs = (" ".join(map(str, x.values())) for x in (evaluated, recorded))
            raise ExperimentError(
                f"trial {job_id} evaluated the path '{ours}', and NNI's record of it has "
                f"'{theirs}' ({', '.join(recorded)}): a trial must get its path from "
                "nni_spos.experiment.exchange.open_trial."
            )

    def _record_cost(self, value: Any) -> None:
        """Add the time since the last result, and the memory and notes that a trial reported."""
        now = time.monotonic()
        memory = value.get(MEMORY) if isinstance(value, Mapping) else None
        self._recorder.note(reported_notes(value))
        self._recorder.add(add_memory(now - self._recorded_at, memory))
        self._recorded_at = now

    def _proceed(self) -> None:
        """Send paths to the requests that wait for one."""
        if self._beginning is not None:
            if not self._beginning.is_over:
                return
            try:
                self._started.search.enqueue(self._beginning.paths())
            except ExperimentError as problem:
                self._begin_with_random_paths(problem)
            self._beginning = None
        try:
            handed = self._started.hand_out()
        except SearchError as problem:
            raise self._ends.advise(problem) from None
        for parameter_id, path in handed:
            assert self._send is not None, "requests come with the callback"
            self._send(parameter_id, path)

    def _watch(self) -> None:
        """Until NNI stops: give up results that never came, and end the experiment."""
        next_poll = 0.0
        while not self._stopping.wait(self.TICK) and self._failure is None:
            if self._beginning is not None:
                self._look_at_beginning()
            self._give_up()
            self._close()
            if (begin := time.monotonic()) >= next_poll:
                self._poll()
                end = time.monotonic()
                next_poll = end + max(self.POLL, self.PAUSE * (end - begin))

    @_guarded
    def _look_at_beginning(self) -> None:
        self._proceed()

    @_guarded
    def _give_up(self) -> None:
        """Give up the results of trials that ended, or hand the paths of killed ones out again."""
        scheduler, before = self._started, time.monotonic() - self.GRACE
        overdue = scheduler.overdue(before)
        if not overdue:
            return
        jobs = self._trial_jobs()
        if jobs is None:
            return
        keys = {parameter_id: scheduler.trials[parameter_id].key for parameter_id in overdue}
        reasons, unknown = dict.fromkeys(overdue, NO_RESULT), set()
        for job in jobs:
            if job.id in self._settled_jobs:
                continue
            if job.was_killed and self._key(job) in keys.values():
                self._settle(job)
            # Trials of an earlier run have numbers that are those of other paths now.
            elif job.parameter_id in keys and self._key(job) == keys[job.parameter_id]:
                outcome = self._outcome(job) if job.has_ended else None
                if isinstance(outcome, str):
                    reasons[job.parameter_id] = outcome
                elif outcome is None:  # it is not known yet
                    unknown.add(job.parameter_id)
                else:
                    scheduler.take(outcome, job.parameter_id)
        scheduler.give_up({x: reasons[x] for x in reasons if x not in unknown})
        self._proceed()

    @_guarded
    def _poll(self) -> None:
        """Look up trials whose end NNI does not announce.

        These are the ones of an earlier run, and any, should an announcement be lost, when
        requests wait although all paths were handed out. A trial must be seen ended twice: its
        result may be on its way.
        """
        scheduler = self._started
        if not (scheduler.adopted or scheduler.is_idle):
            return
        jobs = self._trial_jobs()
        if jobs is None:
            return
        awaited = {*scheduler.adopted, *(trial.key for trial in scheduler.trials.values())}
        for job in jobs:
            if job.id in self._settled_jobs:
                continue
            if not job.has_ended:
                if job.status == RESUMED and self._is_forgotten(job):
                    self._settled_jobs.add(job.id)
                    self._retry(job)
            elif self._key(job) not in awaited:
                self._settled_jobs.add(job.id)
            elif job.id in self._ended_jobs:
                self._settle(job)
            else:
                self._ended_jobs.add(job.id)
        self._proceed()

    def _is_forgotten(self, job: TrialJob) -> bool:
        """Whether NNI has had room for a trial for a while, and does not run it again."""
        scheduler, now = self._started, time.monotonic()
        if self._key(job) not in scheduler.adopted or not scheduler.is_idle:
            self._expected_since.pop(job.id, None)
            return False
        return now - self._expected_since.setdefault(job.id, now) >= self.PATIENCE

    def _trial_jobs(self) -> list[TrialJob] | None:
        """Return the manager's records of all trials, or None if it is busy."""
        try:
            return self._manager.trial_jobs()
        except ExperimentError as problem:
            _logger.warning("%s Trying again.", problem)
            return None

    def _outcome(self, job: TrialJob) -> Any:
        """Return a trial's metrics, why its path fails, or None if the manager is busy.

        Raises
        ------
        SearchError
            It is not the path that failed.
        """
        if job.metrics is not None:
            return job.metrics
        try:
            # A record has no result of a trial that failed after its report.
            reported = self._manager.final_result(job.id)
            return self._ends.reason(job) if reported is None else reported
        except ExperimentError as problem:
            _logger.warning("%s Trying again.", problem)
            return None

    def _settle(self, job: TrialJob) -> None:
        """Take what became of a trial, once."""
        if job.was_killed:
            self._settled_jobs.add(job.id)
            self._retry(job)
        elif (outcome := self._outcome(job)) is not None:
            self._settled_jobs.add(job.id)
            self._started.settle(job.parameters or {}, outcome)

    def _retry(self, job: TrialJob) -> None:
        """Hand the path of a killed trial out again, but not for ever."""
        path = job.parameters or {}
        if not self._started.retry(path):
            self._started.settle(path, self._ends.reason_of_kills(job, ATTEMPTS))

    def _key(self, job: TrialJob) -> PathKey | None:
        """Return the path of a trial as positions; None if it is not one of this space."""
        space = self._started.search.space
        try:
            return space.key(restore_numbers(job.parameters or {}, space))
        except PathError:
            return None

    @_guarded
    def _close(self) -> None:
        """Let NNI end the experiment once the search is over."""
        if self._is_closed or not self._started.is_finished:
            return
        try:
            num_ended = sum(job.has_ended for job in self._manager.trial_jobs())
            self._manager.set_max_trial_number(num_ended)
        except ExperimentError as problem:
            _logger.warning("%s Trying again.", problem)
            return
        self._is_closed = True
        _logger.info("the search is over after %d trials", num_ended)
        with contextlib.suppress(ExperimentError):  # the journal has been damaged meanwhile
            found = load_results(self._journal.file.parent)
            if line := unused_line(found, self._started.search.costs):
                _logger.info(line)

    def _report_failure(self) -> None:
        """Tell the manager what went wrong, as soon as it can be told."""
        if self._send is not None and not self._failure_reported:
            self._failure_reported = True
            self._send.__self__.report_error(self._failure)  # type: ignore[attr-defined]
