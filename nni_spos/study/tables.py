"""Tables of an experiment's results, from the files that its steps leave.

What is not there yet is a row of dashes, so that a table can be read while the experiment runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.baseline import BaselineResult, baseline_table, read_baselines
from nni_spos.baseline.retraining import read_network
from nni_spos.baseline.table import NOT_YET
from nni_spos.display.numbers import NOT_RECORDED, format_duration, format_memory
from nni_spos.display.tables import Table
from nni_spos.errors import ExperimentError
from nni_spos.files.atomic import read_json
from nni_spos.metrics import format_metric, metric_title
from nni_spos.recipe.output import SearchFolder
from nni_spos.recipe.recipe import load_recipe
from nni_spos.report.figures import summarise_generations
from nni_spos.report.stages import read_stages
from nni_spos.search.results import Results, load_results
from nni_spos.search.run_record import read_run_record
from nni_spos.tasks.base import Figure

Record = dict[str, Any]
Names = Mapping[str, str]
"""Name of a row, or of several, to what it is made of."""


@dataclass(frozen=True)
class ResultTable:
    """A table for people, and the same as JSON values.

    Parameters
    ----------
    title
        What it shows.
    records
        One mapping for each row, unrounded.
    table
        The same as text.
    """

    title: str
    records: list[Record]
    table: Table


def networks_table(title: str, of: Names) -> ResultTable:
    """Compare retrained networks: files ``*.pt``, or folders of baselines."""
    results = []
    for name, place in of.items():
        if place.endswith(".pt"):
            network = read_network(FilePath(place), name)
            results.append(network[1] if network else BaselineResult(name, {}, (), None))
        else:
            results += [
                dataclasses.replace(result, name=f"{name} {result.name}")
                for result in read_baselines(FilePath(place))
            ]
    return ResultTable(title, [dataclasses.asdict(x) for x in results], baseline_table(results))


def searches_table(title: str, of: Names) -> ResultTable:
    """Compare what searches found, by the folders of their journals."""
    folders = {name: SearchFolder(FilePath(folder)) for name, folder in of.items()}
    found = {name: _read_search(folder) for name, folder in folders.items()}
    records = [
        {"search": name, **_search_record(folder, found[name])} for name, folder in folders.items()
    ]
    metrics = list(dict.fromkeys(metric for x in records for metric in x.get("costs", {})))
    figures = {x.figure for x in found.values() if x is not None}
    common = figures.pop() if len(figures) == 1 else Figure("result")
    header = ["search", "candidates", f"best validation {common.short_title}"]
    header.append(f"mean of the last generation{_unit(common)}")
    header += [*map(metric_title, metrics), "time"]
    rows = []
    for record, results in zip(records, found.values(), strict=True):
        costs, seconds = record.get("costs", {}), record.get("seconds")
        row = [record["search"], str(record.get("num_candidates", NOT_YET))]
        own = results.figure if results is not None else common
        row += [_cell(record.get(key), own, common) for key in ("best", "mean_of_last")]
        row += [format_metric(x, costs[x]) if x in costs else NOT_YET for x in metrics]
        row.append(NOT_RECORDED if seconds is None else format_duration(seconds))
        rows.append(row)
    return ResultTable(title, records, Table(header, rows))


def _search_record(folder: SearchFolder, results: Results | None) -> Record:
    generations = _generations(results)
    if results is None or not generations:
        return {}
    cost = read_run_record(folder).cost
    return {
        "num_candidates": results.num_done,
        "best": results.best.metrics[results.objective],
        "mean_of_last": generations[-1]["mean"],
        "costs": dict(results.best.costs),
        "path": dict(results.best.path),
        "seconds": None if cost is None else cost.seconds,
    }


def generations_table(title: str, of: Names) -> ResultTable:
    """Compare searches generation by generation."""
    searches = {name: _read_search(SearchFolder(FilePath(folder))) for name, folder in of.items()}
    found = {name: _generations(results) for name, results in searches.items()}
    figures = [x.figure if x is not None else Figure("result") for x in searches.values()]
    header = ["candidates so far"]
    for name, figure in zip(searches, figures, strict=True):
        unit = _unit(figure)
        header += [f"{name}: best {figure.brief} so far{unit}", f"{name}: mean{unit}"]
    most = max(map(len, found.values()), default=0)
    rows = []
    for i in range(most):
        columns = [rows_of[i] if i < len(rows_of) else {} for rows_of in found.values()]
        row = [str(next(x["num_so_far"] for x in columns if x))]
        for column, figure in zip(columns, figures, strict=True):
            row += [_cell(column.get(key), figure, figure) for key in ("best_so_far", "mean")]
        rows.append(row)
    records = [{"search": name, "generations": rows_of} for name, rows_of in found.items()]
    return ResultTable(title, records, Table(header, rows))


def stages_table(title: str, of: Names) -> ResultTable:
    """List what the stages of recipes cost: training, search and retraining of its best path."""
    header = ["recipe", "stage", "time", "peak memory", "device", "remark"]
    records: list[Record] = []
    rows = []
    for name, file in of.items():
        # The experiment writes its recipes when it begins.
        for stage in _stages(FilePath(file)) if FilePath(file).exists() else []:
            cost = stage.cost
            records.append(
                {
                    "recipe": name,
                    "stage": stage.name,
                    "cost": None if cost is None else cost.to_json(),
                    "remark": stage.remark,
                }
            )
            figures = [NOT_RECORDED, NOT_RECORDED, ""]
            if cost is not None:
                figures = [format_duration(cost.seconds), format_memory(cost.peak_memory_bytes)]
                figures.append(cost.device)
            rows.append([name, stage.name, *figures, stage.remark])
    return ResultTable(title, records, Table(header, rows))


def _stages(file: FilePath) -> list[Any]:
    recipe = load_recipe(file)
    folder = recipe.files.search
    results = _read_search(folder)
    best = results.best.path if results is not None and results.num_done else {}
    return read_stages(recipe, read_run_record(folder).cost, best, None)


def values_table(title: str, of: Names) -> ResultTable:
    """List the figures in JSON files, ``FILE.json``, or of a part of one, ``FILE.json#KEY``."""
    records: list[Record] = []
    rows = []
    for name, place in of.items():
        content = _read_values(place)
        records.append({"name": name, "values": content})
        figures = _flatten(content) or {NOT_YET: None}
        rows += [[name, key, _figure(value)] for key, value in figures.items()]
    return ResultTable(title, records, Table(["", "figure", "value"], rows))


def _read_values(place: str) -> Any:
    """Return what a file says, or its part; None if it is not there. Raises ExperimentError."""
    stem, hash_sign, key = place.rpartition(".json#")
    file = FilePath(f"{stem}.json" if hash_sign else place)
    if not file.exists():
        return None
    content = read_json(file, ExperimentError)
    if not hash_sign:
        return content
    if not isinstance(content, dict) or key not in content:
        raise ExperimentError(f"{file}: has no key '{key}'.")
    return content[key]


def _flatten(content: Any) -> Record:
    """Return the figures and texts in nested mappings and lists of these, by keys with dots.

    >>> _flatten({"tau": {"value": 0.7, "low": None}, "points": [1, 2], "top": [{"k": 10}]})
    {'tau.value': 0.7, 'tau.low': None, 'top.0.k': 10}
    """
    found: Record = {}
    for key, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, list):
            value = {i: x for i, x in enumerate(value) if isinstance(x, Mapping)}
        if isinstance(value, Mapping):
            found |= {f"{key}.{rest}": x for rest, x in _flatten(value).items()}
        else:
            found[str(key)] = value
    return found


def _figure(value: Any) -> str:
    if value is None:
        return NOT_YET
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: float | None, figure: Figure, title: Figure) -> str:
    """Return a value for a column; its name goes with it if the title is that of another."""
    if value is None:
        return NOT_YET
    return figure.number(value) if figure == title else f"{figure.brief} {figure.format(value)}"


def _unit(figure: Figure) -> str:
    return f" ({figure.unit})" if figure.unit else ""


def _read_search(folder: SearchFolder) -> Results | None:
    return load_results(folder.path) if folder.journal.is_file() else None


def _generations(results: Results | None) -> list[Record]:
    if results is None:
        return []
    rows = summarise_generations(results.candidates, results.objective)
    return [dataclasses.asdict(row) for row in rows]


TABLES: Mapping[str, Callable[[str, Names], ResultTable]] = {
    "networks": networks_table,
    "searches": searches_table,
    "generations": generations_table,
    "stages": stages_table,
    "values": values_table,
}
"""How to make a table, by its kind in an experiment's file."""
