"""Everything that a report says, from the journal, the recipe and the files of the stages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.costs.stored import are_built, load_costs
from nni_spos.errors import ExperimentError, RecipeError, SposError
from nni_spos.evolution import Candidate
from nni_spos.path import PathSpace
from nni_spos.recipe.identity import SEARCH_CODE, WEIGHTS
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.recipe.registries import SEARCHES
from nni_spos.recipe.task import find_task
from nni_spos.report.exported import ExportedFile, read_exported
from nni_spos.report.figures import (
    Frequencies,
    Generation,
    count_choices,
    summarise_generations,
)
from nni_spos.report.pictures import Picture, read_pictures
from nni_spos.report.stages import ReportedStage, read_stages
from nni_spos.report.units import ReportedUnit, divide
from nni_spos.search.results import Results, load_results
from nni_spos.search.run_record import read_run_record
from nni_spos.search.staleness import stale_line
from nni_spos.search.unused_limit import tightest_limit, unused_line
from nni_spos.tasks.base import Figure, Task, plain_figure
from nni_spos.values import is_finite

FIRST_METRIC = "flops"
"""Cost that is shown first if the search has no constraint."""

IdOrFolder = str | os.PathLike[str]


@dataclass(frozen=True)
class Comparison:
    """Another search of the same supernet.

    Parameters
    ----------
    name
        For people.
    generations
        Its results.
    """

    name: str
    generations: Sequence[Generation]


@dataclass(frozen=True)
class Report:
    """What a report says.

    Parameters
    ----------
    title, algorithm
        Names of the search and of its algorithm.
    results
        All candidates.
    space
        Labels and their choices.
    top
        The best candidates, best first.
    constraints
        Limits of the search.
    generations
        Results of each generation.
    frequencies
        How often each choice was proposed.
    units, fixed_costs
        The parts that the units of the best path, and all layers without a choice, have in its
        costs; empty where the cost tables are not known.
    comparison
        Another search, if one was asked for.
    stages
        What the stages cost.
    notes
        What is missing, and how to add it.
    pictures
        Curves of the trainings.
    task
        Says how results are called; None where that is not known.
    exported
        The file of a path, and what it is worth; None without one.
    tightest
        The upper limit that the best candidate uses most of, in the unit of its metric; None if
        there is none, or it is not known.
    """

    title: str
    algorithm: str
    results: Results
    space: PathSpace
    top: Sequence[Candidate]
    constraints: Sequence[Constraint]
    generations: Sequence[Generation]
    frequencies: Sequence[Frequencies]
    units: Sequence[ReportedUnit]
    fixed_costs: Mapping[str, float]
    comparison: Comparison | None
    stages: Sequence[ReportedStage]
    notes: Sequence[str]
    pictures: Sequence[Picture] = ()
    task: Task | None = None
    exported: ExportedFile | None = None
    tightest: Constraint | None = None

    @property
    def objective(self) -> str:
        """Name of the result that the search maximised."""
        return self.results.objective

    def result_title(self, name: str) -> str:
        """What an axis or a column of a result is called."""
        return self.figure(name).full_title

    def figure(self, name: str) -> Figure:
        """Return how a result is shown."""
        return self.task.figure(name) if self.task else plain_figure(name)

    @property
    def best(self) -> Candidate:
        """The best candidate."""
        return self.results.best

    @property
    def metrics(self) -> list[str]:
        """Costs of the candidates, the first constrained one first."""
        first = [limit.metric for limit in self.constraints] or [FIRST_METRIC]
        return [x for x in dict.fromkeys([*first, *self.best.costs]) if x in self.best.costs]

    @property
    def drawn_metrics(self) -> list[str]:
        """Costs that results are drawn against: all constrained ones, and multiply-adds."""
        drawn = {*(limit.metric for limit in self.constraints), FIRST_METRIC}
        return [metric for metric in self.metrics if metric in drawn] or self.metrics[:1]


def gather_report(
    search: IdOrFolder,
    *,
    against: IdOrFolder | None = None,
    recipe: str | os.PathLike[str] | None = None,
    retrained: str | os.PathLike[str] | None = None,
    exported: str | os.PathLike[str] | None = None,
    count: int = 10,
) -> Report:
    """Collect what a report says.

    Parameters
    ----------
    search
        Id of an NNI experiment of this user, or a folder, see `load_results`.
    against
        Another search of the same supernet, best a random one.
    recipe
        File of the search's recipe, by default where it was when the search ran.
    retrained
        File of the retrained network, by default the recipe's.
    exported
        An exported folder, by default the recipe's.
    count
        How many of the best candidates are listed.

    Raises
    ------
    ExperimentError
        There is no such search, it has no result yet, its journal is damaged, `against` is of
        another supernet, or `recipe` of another space.
    RecipeError, ConstraintError, PathError, CostError
        The recipe that was given, or the journal, cannot be used.
    """
    results = load_results(search)
    space = _checked_space(results)
    best = results.best
    record = read_run_record(results.folder)
    notes: list[str] = []
    found = _find_recipe(recipe, record.recipe, space, notes)
    if found and (line := stale_line(results, found[0])):
        notes.append(line)
    costs: Costs = found[1] if found else {}
    if line := unused_line(results, costs):
        notes.append(f"{line[0].upper()}{line[1:]}")
    units, fixed = _divide(costs, space, best, notes) if found else ([], {})
    comparison = None if against is None else _compare(results, against, notes)
    if comparison is None:
        notes.append(
            "To compare with a random search, run one of the same supernet (search: {algorithm: "
            "random}) into another folder, and add --against ID_OR_DIR."
        )
    constraints = [Constraint.parse(text) for text in results.constraints]
    return Report(
        title=record.output or results.file.parent.name,
        algorithm=_name(results),
        results=results,
        space=space,
        top=results.top(count),
        constraints=constraints,
        generations=summarise_generations(results.candidates, results.objective),
        frequencies=count_choices(results.candidates, space),
        units=units,
        fixed_costs=fixed,
        comparison=comparison,
        stages=read_stages(
            found[0] if found else None,
            record.cost,
            best.path,
            None if retrained is None else FilePath(retrained),
            results.settings.get(WEIGHTS),
        ),
        notes=notes,
        pictures=read_pictures(
            found[0] if found else None, None if retrained is None else FilePath(retrained)
        ),
        task=results.task or (find_task(found[0].task) if found else None),
        exported=_exported(exported, found[0] if found else None),
        tightest=tightest_limit(best, constraints, costs),
    )


def _exported(given: str | os.PathLike[str] | None, recipe: Recipe | None) -> ExportedFile | None:
    """Return what is known of the exported file. Raises ExperimentError for one that was given."""
    if given is None:
        return read_exported(recipe.files.exported) if recipe else None
    found = read_exported(FilePath(given))
    if found is None:
        raise ExperimentError(f"{given}: is no folder that 'nni-spos export' wrote.")
    return found


def _checked_space(results: Results) -> PathSpace:
    """Return the space of a journal whose candidates can be shown. Raises ExperimentError."""
    try:
        space = PathSpace.from_search_space(results.settings.get("choices"))
        space.encode(candidate.path for candidate in results.candidates)
    except SposError as problem:
        raise ExperimentError(f"{results.file}: {problem}") from None
    metrics = set(results.candidates[0].costs) if results.candidates else set()
    for candidate in results.candidates:
        costs = candidate.costs
        if set(costs) != metrics or not all(map(is_finite, costs.values())):
            raise ExperimentError(
                f"{results.file}: candidate {candidate.number} has a result or a cost that is "
                "missing or not a number."
            )
    return space


def _find_recipe(
    given: str | os.PathLike[str] | None,
    recorded: FilePath | None,
    space: PathSpace,
    notes: list[str],
) -> tuple[Recipe, Costs] | None:
    """Return recipe and cost tables; without them there is a report, unless they were given."""
    if given is not None:
        return _load_recipe(given, space)
    if recorded is None:
        notes.append("Which recipe the search is of was not recorded; --recipe FILE names it.")
        return None
    try:
        loaded = load_recipe(recorded)
        names = (loaded.space.name, loaded.task.name, *(m.name for m in loaded.metrics))
        named = [x for x in names if ":" in x]
        if named and not are_built(loaded):
            raise RecipeError(f"{named[0]} is not imported on a record's word.")
        return _load_recipe(recorded, space)
    except SposError as problem:
        notes.append(f"The recipe cannot be used: {problem} --recipe FILE names another.")
        return None


def _load_recipe(file: str | os.PathLike[str], space: PathSpace) -> tuple[Recipe, Costs]:
    recipe = load_recipe(file)
    own_space, costs = load_costs(recipe)
    if own_space != space:
        raise ExperimentError(f"{recipe.file.name}: is of another space than the search.")
    return recipe, costs


def _divide(
    costs: Costs, space: PathSpace, best: Candidate, notes: list[str]
) -> tuple[list[ReportedUnit], dict[str, float]]:
    """Return the costs of the best path's units and of the fixed layers."""
    known = {x: costs[x] for x in best.costs if x in costs and costs[x].is_sum}
    changed = [x for x, table in known.items() if table.price(best.path) != best.costs[x]]
    if changed:
        notes.append(
            f"The recipe's tables of {', '.join(changed)} are not those of the search any more, "
            "so the costs of units are left out."
        )
    known = {metric: table for metric, table in known.items() if metric not in changed}
    if not known:
        return [], {}
    return divide(best.path, space, known), {x: table.constant for x, table in known.items()}


def _compare(results: Results, against: IdOrFolder, notes: list[str]) -> Comparison:
    """Read another search of the same supernet. Raises ExperimentError."""
    other = load_results(against)
    _checked_space(other)
    keys = {*results.settings, *other.settings} - {"search", SEARCH_CODE, "latency"}
    differing = [x for x in sorted(keys) if results.settings.get(x) != other.settings.get(x)]
    if results.objective != other.objective:
        differing.append("objective")
    if differing:
        raise ExperimentError(
            f"{other.file}: cannot be compared, it is a search of another supernet or objective "
            f"({', '.join(differing)} differ)."
        )
    generations = summarise_generations(other.candidates, other.objective)
    if not generations:
        raise ExperimentError(f"{other.file}: no candidate is finished yet.")
    limits = [x.constraints for x in (results, other)]
    if limits[0] != limits[1]:
        notes.append(
            "The search that is compared with had other limits: "
            f"{', '.join(map(str, limits[1])) or 'none'}."
        )
    name = _name(other)
    return Comparison(f"other {name}" if name == _name(results) else name, generations)


def _name(results: Results) -> str:
    algorithm = str(results.search_settings.get("algorithm", "search"))
    ours = SEARCHES.load_ours(algorithm).title if algorithm in SEARCHES.ours else ""
    return ours or algorithm
