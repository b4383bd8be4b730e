"""What a search found so far, read from its journal.

The journal is in the experiment's folder and needs no running manager: results can be read while
the search runs, after it was stopped and after the manager was killed.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.constraint import Constraint
from nni_spos.display.tables import LEFT, RIGHT, Table, as_text
from nni_spos.errors import ConstraintError, ExperimentError, SearchError, one_line, unknown
from nni_spos.evolution import Candidate, State, pareto_front, read_journal
from nni_spos.evolution.reasons import MOST_REASONS, distinct_reasons
from nni_spos.metrics import format_metric
from nni_spos.path import save_path
from nni_spos.recipe.output import SearchFolder, search_of_experiment
from nni_spos.tasks.base import LOG_LIKELIHOOD, LOSS, Figure, Task, plain_figure
from nni_spos.tasks.lookup import recorded_task
from nni_spos.values import is_finite, shown


@dataclass(frozen=True)
class Results:
    """Finished and failed candidates of a search.

    Parameters
    ----------
    file
        The journal.
    settings
        Of the search, as in `nni_spos.search.building.fingerprint`.
    candidates
        Finished and failed ones, in the order of proposal.
    own_task
        A user's task, where that is imported anyway; the name in a file imports nothing.
    """

    file: FilePath
    settings: dict[str, Any]
    candidates: Sequence[Candidate]
    own_task: Task | None = None

    @property
    def folder(self) -> SearchFolder:
        """The folder of the search."""
        return SearchFolder(self.file.parent)

    @property
    def objective(self) -> str:
        """Name of the result that the search maximises."""
        return str(self.search_settings.get("objective", "top1"))

    @property
    def task(self) -> Task | None:
        """The task of the search; None if it is not known what that is."""
        return recorded_task(self.settings.get("task")) or self.own_task

    @property
    def figure(self) -> Figure:
        """How the objective is shown."""
        return self.figure_of(self.objective)

    def figure_of(self, name: str) -> Figure:
        """Return how a result is shown."""
        return self.task.figure(name) if self.task else plain_figure(name)

    def result_names(self, candidates: Sequence[Candidate]) -> list[str]:
        """Return the figures that tables show of some candidates; the objective comes first."""
        task = self.task
        names = [*(x.name for x in task.figures), LOSS.name] if task else _numbers(candidates)
        shown = dict.fromkeys([self.objective, *names])
        return [name for name in shown if any(name in c.metrics for c in candidates)]

    @property
    def search_settings(self) -> dict[str, Any]:
        """The recipe's section on the search; empty if the journal does not have it."""
        found = self.settings.get("search")
        return found if isinstance(found, dict) else {}

    @property
    def constraints(self) -> list[str]:
        """Texts of the constraints that the search had."""
        found = self.search_settings.get("constraints")
        return found if isinstance(found, list) else []

    @property
    def cost_objectives(self) -> tuple[str, ...]:
        """Names of the costs that the search minimises; most searches minimise none."""
        found = self.search_settings.get("cost_objectives")
        return tuple(found) if isinstance(found, list) else ()

    @property
    def num_done(self) -> int:
        """Number of candidates with a result."""
        return sum(candidate.state is State.DONE for candidate in self.candidates)

    @property
    def num_failed(self) -> int:
        """Number of candidates without one."""
        return len(self.candidates) - self.num_done

    @property
    def best(self) -> Candidate:
        """The best candidate. Raises ExperimentError if none is finished yet."""
        best = self.top(1)
        if not best:
            raise ExperimentError(f"{self.file}: no candidate is finished yet.")
        return best[0]

    def top(self, count: int = 10) -> list[Candidate]:
        """Return the best candidates, best first; ties go to the earlier proposed."""
        done = [candidate for candidate in self.candidates if candidate.state is State.DONE]
        return sorted(done, key=lambda c: (-c.metrics[self.objective], c.number))[:count]

    def front(self) -> list[Candidate]:
        """Return what no other candidate improves on in every objective, by rising cost.

        Empty for a search without costs to minimise.
        """
        costs = self.cost_objectives
        return pareto_front(self.candidates, self.objective, costs) if costs else []

    def within(self, limits: Sequence[Constraint]) -> Results:
        """Return the candidates that keep limits on their costs, as of a search of their own.

        Raises
        ------
        ConstraintError
            A limit is on a cost that the candidates do not have.
        ExperimentError
            No finished candidate keeps them.
        """
        known = dict.fromkeys(metric for c in self.candidates for metric in c.costs)
        for limit in limits:
            if limit.metric not in known:
                raise ConstraintError(f"'{limit}': {unknown('metric', limit.metric, known)}")
            if limit.is_share:
                raise ConstraintError(
                    f"'{limit}': what the dearest path costs is not a part of the results. Write "
                    "a number, such as 'flops <= 330M'."
                )
        kept = [c for c in self.candidates if all(x.allows(c.costs[x.metric]) for x in limits)]
        found = dataclasses.replace(self, candidates=kept)
        if limits and not found.num_done:
            texts = " and ".join(f"'{limit}'" for limit in limits)
            raise ExperimentError(f"{self.file}: no finished candidate meets {texts}.")
        return found

    def format_table(self, count: int = 10) -> str:
        """Return a table of the best candidates: results, costs, generation and path."""
        return self._format(self.top(count)) or "no candidate is finished yet"

    def format_front(self) -> str:
        """Return a heading and a table of the whole front, or nothing if there is none."""
        table = self._format(self.front())
        if not table:
            return ""
        names = " against ".join([self.figure.brief, *self.cost_objectives])
        return f"front of {names}, {len(self.front())} candidates:\n{table}"

    def format_failures(self) -> str:
        """Return how many candidates failed and why, or nothing if none did."""
        if not self.num_failed:
            return ""
        reasons = distinct_reasons(self.candidates)
        lines = [f"  {one_line(reason)}" for reason in reasons[:MOST_REASONS]]
        if more := len(reasons) - len(lines):
            lines.append(f"  and {more} other reasons, in {self.file}")
        number = f"{self.num_failed} candidate{'s' if self.num_failed > 1 else ''}"
        return "\n".join([f"{number} failed:", *lines])

    def _format(self, top: Sequence[Candidate]) -> str:
        if not top:
            return ""
        results = [self.figure_of(name) for name in self.result_names(top)]
        costs = list(top[0].costs)
        labels = list(top[0].path)
        span = " .. ".join(dict.fromkeys([*labels[:1], *labels[-1:]]))
        # Costs have the names that limits have.
        titles = [figure.short_title for figure in results]
        header = ["rank", *titles, *costs, "generation", f"path ({span})"]
        rows = [
            [
                str(rank),
                *(_number(figure, candidate.metrics.get(figure.name)) for figure in results),
                *(
                    format_metric(name, candidate.costs[name]) if name in candidate.costs else "-"
                    for name in costs
                ),
                str(candidate.generation),
                " ".join(str(choice) for choice in candidate.path.values()),
            ]
            for rank, candidate in enumerate(top, start=1)
        ]
        # Names and choices are as the journal has them; they must not control the terminal.
        table = Table(_plain(header), [_plain(row) for row in rows])
        return as_text(table, [RIGHT] * (len(header) - 1) + [LEFT])

    def save_best(self, file: str | os.PathLike[str]) -> None:
        """Write the best path as JSON. Raises ExperimentError if none is finished yet."""
        save_path(file, self.best.path)


def load_results(id_or_folder: str | os.PathLike[str]) -> Results:
    """Read the results of an NNI experiment, or of a search in one process.

    Parameters
    ----------
    id_or_folder
        Id of an NNI experiment of this user, or a folder: an experiment's, or one with a journal.

    Raises
    ------
    ExperimentError
        There is no such experiment or folder, it has no journal yet, or the journal is damaged.
    """
    if FilePath(id_or_folder).is_dir():
        folder = FilePath(id_or_folder)
    else:
        folder = experiment_folder(os.fspath(id_or_folder))
    places = [x.journal for x in (SearchFolder(folder), search_of_experiment(folder))]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ExperimentError(
            f"{folder}: has no results yet (looked for {' and '.join(map(str, places))})."
        )
    try:
        settings, candidates = read_journal(file)
    except SearchError as problem:
        raise ExperimentError(str(problem)) from None
    results = Results(file, settings, candidates)
    for candidate in candidates:
        value = candidate.metrics.get(results.objective)
        if candidate.state is State.DONE and not is_finite(value):
            raise ExperimentError(
                f"{file}: candidate {candidate.number} has a result or a cost that is missing or "
                f"not a number: {results.objective} is {shown(value)}."
            )
    return results


def experiment_folder(experiment_id: str) -> FilePath:
    """Return the folder of an NNI experiment, running or not. Raises ExperimentError."""
    record = read_manifest().get(experiment_id)
    parent = record.get("logDir") if isinstance(record, dict) else None
    folder = FilePath(parent or nni_home()) / experiment_id
    if record is None and FilePath(experiment_id).is_file():
        raise ExperimentError(
            f"{experiment_id}: is a file. Give the ID of an NNI experiment ('nnictl experiment "
            "list --all' shows them), or the folder of a search in one process (search in the "
            "output folder of its recipe)."
        )
    if not folder.is_dir():
        raise ExperimentError(
            f"'{experiment_id}' is neither a folder nor an NNI experiment of this user "
            f"(looked in {nni_home() / '.experiment'}). 'nnictl experiment list --all' shows them."
        )
    return folder


def read_manifest() -> dict[str, Any]:
    """Return NNI's list of this user's experiments by id, empty if there is none."""
    try:
        content = json.loads((nni_home() / ".experiment").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def nni_home() -> FilePath:
    """Return the folder of NNI's list of experiments, which no setting moves."""
    return FilePath.home() / "nni-experiments"


def _numbers(candidates: Sequence[Candidate]) -> list[str]:
    """Return the names of results that are numbers, and no costs."""
    found = dict.fromkeys(x for c in candidates for x, y in c.metrics.items() if is_finite(y))
    hidden = {LOG_LIKELIHOOD, *(cost for c in candidates for cost in c.costs)}
    return [name for name in found if name not in hidden]


def _number(figure: Figure, value: Any) -> str:
    return figure.number(value) if is_finite(value) else "-"


def _plain(row: Sequence[str]) -> list[str]:
    return [one_line(cell) for cell in row]
