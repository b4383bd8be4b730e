"""Reports as one HTML page, or as Markdown with its charts beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import BinaryIO

import jinja2

from nni_spos._version import __version__
from nni_spos.display.markdown import as_markdown, escape_markdown
from nni_spos.errors import ExperimentError
from nni_spos.files.atomic import write_atomically
from nni_spos.report.charts import draw_charts, draw_choices
from nni_spos.report.diagram import draw_path
from nni_spos.report.drawing import Chart, as_file
from nni_spos.report.exported import exported_note, exported_table
from nni_spos.report.gathering import Report
from nni_spos.report.tables import (
    Table,
    list_facts,
    list_reasons,
    setting_tables,
    stage_table,
    top_table,
    unit_table,
)
from nni_spos.report.units import RULE

STAGES_NOTE = (
    "Time is that of the wall clock. Peak memory is what tensors took on a GPU, and the resident "
    "size of the process on a CPU. Scores that an earlier search of the same supernet left cost "
    "nothing here. Under NNI the search's time runs from the start of the experiment to the last "
    "result, with a supernet that a trial trained first; its memory is that of the largest process "
    "that scored paths: a worker, or a trial."
)


def render_html(report: Report) -> str:
    """Return the page: one file, without anything from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nni_spos.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html").render(
        report=report,
        summary=_summary(report),
        facts=list_facts(report),
        path=draw_path(report),
        charts=draw_charts(report),
        choices=draw_choices(report.frequencies),
        units=unit_table(report),
        rule=RULE,
        top=top_table(report),
        exported=_exported(report),
        exported_note=_exported_note(report),
        stages=stage_table(report),
        stages_note=STAGES_NOTE,
        notes=_notes(report),
        settings=setting_tables(report),
        version=__version__,
    )


def render_markdown(report: Report, folder: str) -> tuple[str, dict[str, str | bytes]]:
    """Return the text, and by name the SVG and PNG files that it shows.

    Parameters
    ----------
    report
        What to say.
    folder
        Of the files, relative to the text.
    """
    path, charts = draw_path(report), draw_charts(report)
    choices = draw_choices(report.frequencies)
    units = unit_table(report)
    facts = Table(["figure", "value"], list_facts(report))
    parts = [
        f"# {escape_markdown(report.title)}: search report",
        escape_markdown(_summary(report)),
        as_markdown(facts),
        "## The best path",
        _figure(path, folder),
        *([as_markdown(units), RULE] if units.rows else []),
        "## Results",
        *(_figure(chart, folder) for chart in charts),
        f"## The best {len(report.top)}",
        as_markdown(top_table(report)),
        "## Choices by generation",
        "How often each choice was proposed: white is never, dark blue all candidates.",
        "\n".join(_image(chart, folder) for chart in choices),
        *(["## Trainings"] if report.pictures else []),
        *(f"![{x.caption}](<{folder}/{x.name}.png>)\n\n{x.caption}" for x in report.pictures),
        *_exported_parts(report),
        "## Costs of the stages",
        as_markdown(stage_table(report)),
        STAGES_NOTE,
        "## Settings",
    ]
    for name, table in setting_tables(report):
        parts += [f"### {escape_markdown(name)}", as_markdown(table)]
    if notes := _notes(report):
        parts += ["## Notes", "\n".join(f"- {escape_markdown(note)}" for note in notes)]
    parts.append(f"nni_spos {__version__}")
    files: dict[str, str | bytes] = {
        **{f"{chart.name}.svg": as_file(chart) for chart in [path, *charts, *choices]},
        **{f"{picture.name}.png": picture.content for picture in report.pictures},
    }
    return "\n\n".join(parts) + "\n", files


def write_html(report: Report, file: FilePath) -> None:
    """Write the page. Raises ExperimentError if that is not possible."""
    _write({file: render_html(report)})


def write_markdown(report: Report, file: FilePath) -> None:
    """Write the text, and its charts into the folder ``STEM_files`` beside it.

    Raises ExperimentError if that is not possible.
    """
    folder = file.with_name(f"{file.stem}_files")
    text, charts = render_markdown(report, folder.name)
    _write({**{folder / name: svg for name, svg in charts.items()}, file: text})


FORMATS: Mapping[str, Callable[[Report, FilePath], None]] = {
    "html": write_html,
    "md": write_markdown,
}
"""How to write a report, by the suffix of its file."""


def _summary(report: Report) -> str:
    limits = f" under {', '.join(map(str, report.constraints))}" if report.constraints else ""
    failed = f", {report.results.num_failed} failed" if report.results.num_failed else ""
    return (
        f"{report.algorithm.capitalize()}{limits}: {report.results.num_done} candidates with a "
        f"result in {len(report.generations)} generations{failed}."
    )


def _exported(report: Report) -> Table | None:
    if report.exported is None:
        return None
    return exported_table(report.exported, report.results.candidates, report.task)


def _exported_note(report: Report) -> str:
    return exported_note(report.exported, report.best.path) if report.exported else ""


def _exported_parts(report: Report) -> list[str]:
    table = _exported(report)
    if table is None:
        return []
    return ["## The exported file", as_markdown(table), escape_markdown(_exported_note(report))]


def _notes(report: Report) -> list[str]:
    return [*report.notes, *(f"A candidate failed: {x}" for x in list_reasons(report))]


def _image(chart: Chart, folder: str) -> str:
    return f"![{escape_markdown(chart.alt)}](<{folder}/{chart.name}.svg>)"


def _figure(chart: Chart, folder: str) -> str:
    return f"{_image(chart, folder)}\n\n{escape_markdown(chart.caption)}"


def _write(files: Mapping[FilePath, str | bytes]) -> None:
    for file, text in files.items():
        content = text.encode() if isinstance(text, str) else text
        try:
            write_atomically(file, functools.partial(_put, content))
        except OSError as problem:
            raise ExperimentError(f"{file}: cannot be written ({problem.strerror}).") from None


def _put(content: bytes, stream: BinaryIO) -> None:
    stream.write(content)
