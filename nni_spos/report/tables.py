"""Tables of a report, as text for any format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from nni_spos.display.numbers import NOT_RECORDED, format_duration, format_memory
from nni_spos.display.tables import Table
from nni_spos.evolution.reasons import MOST_REASONS, distinct_reasons
from nni_spos.metrics import format_metric, metric_title
from nni_spos.process.stage_cost import StageCost
from nni_spos.report.gathering import Report
from nni_spos.report.stages import add_up
from nni_spos.report.units import ReportedUnit
from nni_spos.tasks.base import Figure

SETTINGS = ("search", "evaluation", "data", "supernet")
"""Sections of the settings, in the order of the report."""

MOST_DIGITS = 10**9
"""Numbers of paths from here on are written as a power of ten."""


def list_facts(report: Report) -> list[tuple[str, str]]:
    """Return the few figures that a reader looks for first."""
    best, results = report.best, report.results
    facts = [
        (
            f"best {report.result_title(report.objective)}",
            report.figure(report.objective).number(best.metrics[report.objective]),
        )
    ]
    facts += [
        (metric_title(metric), format_metric(metric, best.costs[metric]))
        for metric in report.metrics
    ]
    facts += [
        ("candidates with a result", f"{results.num_done:,}"),
        ("paths in the space", _size(report.space.size)),
    ]
    if report.comparison is not None:
        other = report.comparison.generations[-1].best_so_far
        gain = best.metrics[report.objective] - other
        facts.append((f"ahead of {report.comparison.name}", f"{gain:+.3g}"))
    return facts


def unit_table(report: Report) -> Table:
    metrics = [x for x in report.metrics if x in report.fixed_costs]
    header = ["unit", "choice", *map(metric_title, metrics)]
    rows = [[unit.name, _choices(unit), *_prices(metrics, unit.costs)] for unit in report.units]
    rows.append(["all layers without a choice", "", *_prices(metrics, report.fixed_costs)])
    rows.append(["sum", "", *_prices(metrics, report.best.costs)])
    return Table(header, rows if report.units else [])


def _prices(metrics: Iterable[str], costs: Mapping[str, float]) -> list[str]:
    return [format_metric(metric, costs[metric]) for metric in metrics]


def _size(size: int) -> str:
    return f"{size:,}" if size < MOST_DIGITS else f"{Decimal(size):.2e}"


def _choices(unit: ReportedUnit) -> str:
    if len(unit.choices) == 1:
        return str(next(iter(unit.choices.values())))
    return ", ".join(f"{label}: {choice}" for label, choice in unit.choices.items())


def top_table(report: Report) -> Table:
    results = report.results.result_names(report.top)
    labels = report.space.labels
    span = labels[0] if len(labels) == 1 else f"{labels[0]} … {labels[-1]}"
    header = [
        "rank",
        *map(report.result_title, results),
        *map(metric_title, report.metrics),
        "generation",
        f"path ({span})",
    ]
    rows = [
        [
            str(rank),
            *(_number(report.figure(name), candidate.metrics.get(name)) for name in results),
            *_prices(report.metrics, candidate.costs),
            str(candidate.generation),
            " ".join(str(candidate.path[label]) for label in labels),
        ]
        for rank, candidate in enumerate(report.top, start=1)
    ]
    return Table(header, rows)


def _number(figure: Figure, value: Any) -> str:
    return figure.number(value) if isinstance(value, int | float) else "-"


def stage_table(report: Report) -> Table:
    """Return what the stages cost, and their sum."""
    rows = [[stage.name, *_costs(stage.cost), stage.remark] for stage in report.stages]
    rows.append(["together", *_costs(add_up(report.stages)), ""])
    return Table(["stage", "time", "peak memory", "device", "remark"], rows)


def _costs(cost: StageCost | None) -> list[str]:
    if cost is None:
        return [NOT_RECORDED, NOT_RECORDED, ""]
    return [format_duration(cost.seconds), format_memory(cost.peak_memory_bytes), cost.device]


def list_reasons(report: Report) -> list[str]:
    """Return why candidates failed, each reason once."""
    return distinct_reasons(report.results.candidates)[:MOST_REASONS]


def setting_tables(report: Report) -> list[tuple[str, Table]]:
    """Return the settings of the search, section by section."""
    known = report.results.settings
    sections = {name: known[name] for name in SETTINGS if isinstance(known.get(name), Mapping)}
    return [
        (name, Table(["setting", "value"], [[str(k), _value(v)] for k, v in values.items()]))
        for name, values in sections.items()
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else str(value)
