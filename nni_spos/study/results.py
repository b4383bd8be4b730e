"""Results of an experiment, as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from nni_spos._version import __version__
from nni_spos.display.markdown import as_markdown, escape_markdown
from nni_spos.display.numbers import format_duration
from nni_spos.display.tables import Table
from nni_spos.files.atomic import write_json, write_text
from nni_spos.study.planning import Plan, PlannedStep
from nni_spos.study.tables import TABLES, ResultTable


def write_results(plan: Plan) -> FilePath:
    """Write ``results.json`` and ``results.md`` into the experiment's folder; return the latter.

    Raises ExperimentError or CheckpointError if a step's result is damaged.
    """
    tables = [
        TABLES[request.kind](
            request.title, {name: plan.fill(text) for name, text in request.of.items()}
        )
        for request in plan.study.tables_of(plan.scale)
    ]
    write_json(plan.output / "results.json", _as_json(plan, tables))
    return write_text(plan.output / "results.md", _as_text(plan, tables))


def _as_json(plan: Plan, tables: list[ResultTable]) -> dict[str, Any]:
    steps = [
        {"name": x.name, "command": x.command, "minutes_expected": x.minutes, "seconds": x.seconds}
        for x in plan.steps
    ]
    return {
        "experiment": plan.study.name,
        "scale": plan.scale,
        "version": __version__,
        "changes": list(plan.overrides),
        "recipes": dict(plan.contents),
        "steps": steps,
        "tables": [{"title": x.title, "rows": x.records} for x in tables],
    }


def _as_text(plan: Plan, tables: list[ResultTable]) -> str:
    study, scale = plan.study, plan.study.scale(plan.scale)
    parts = [
        f"# {escape_markdown(study.title)}",
        escape_markdown(study.about),
        f"Scale {escape_markdown(plan.scale)}: {escape_markdown(scale.about)}",
    ]
    changes = [
        f"{section}.{key} = {value}"
        for override in plan.overrides
        for section, values in override.items()
        for key, value in values.items()
    ]
    if changes:
        parts.append(f"Changed in all recipes: {escape_markdown(', '.join(changes))}.")
    for table in tables:
        parts += [f"## {escape_markdown(table.title)}", as_markdown(table.table)]
    parts += ["## Steps", as_markdown(steps_table(plan.steps)), f"nni_spos {__version__}"]
    return "\n\n".join(parts)


def steps_table(steps: Sequence[PlannedStep]) -> Table:
    """Return the steps, how long they are expected to take, and took."""
    rows = []
    for step in steps:
        seconds = step.seconds
        taken = "to do" if seconds is None else format_duration(seconds)
        rows.append([step.name, format_duration(step.minutes * 60), taken, step.command])
    expected = format_duration(60 * sum(step.minutes for step in steps))
    taken = format_duration(sum(step.seconds or 0 for step in steps))
    return Table(
        ["step", "expected", "taken by its last call", "command"],
        [*rows, ["all", expected, taken, ""]],
    )
