"""The exported file of a path, its figures beside those that the search had of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.display.tables import Table
from nni_spos.errors import ExperimentError, SposError
from nni_spos.evolution import Candidate
from nni_spos.files.atomic import read_json
from nni_spos.metrics import format_metric
from nni_spos.metrics.units import LATENCY
from nni_spos.recipe.output import exported_figures, exported_speed
from nni_spos.tasks.base import Figure, Task, plain_figure
from nni_spos.values import is_finite

SIZES = ("size_bytes", "weight_bytes")
"""Costs that say how many bytes weights take, the first that there is."""


@dataclass(frozen=True)
class ExportedFile:
    """What an exported folder says of itself.

    Parameters
    ----------
    folder
        Where it is.
    content
        Of its ``export.json``.
    speeds
        Of its ``benchmark.json``, if it was measured.
    """

    folder: FilePath
    content: Mapping[str, Any]
    speeds: Sequence[Mapping[str, Any]] = ()

    @property
    def path(self) -> Mapping[str, Any]:
        """Label to choice."""
        return self.content["path"]

    def candidate_of(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Return the candidate of its path, if the search had it."""
        return next((x for x in candidates if x.path == self.path), None)


def read_exported(folder: FilePath) -> ExportedFile | None:
    """Read what ``nni-spos export`` and ``benchmark`` wrote; None if there is nothing usable."""
    try:
        content = read_json(exported_figures(folder), ExperimentError)
        proof = content["verification"]
        figures = [x for x in (proof["file"], proof["network"]) if x is not None]
        numbers = [content["bytes"], *(y for x in figures for y in x.values())]
        is_right = isinstance(content["path"], Mapping) and isinstance(content["file"], str)
        if not is_right or not all(map(is_finite, numbers)):
            return None
    except (SposError, KeyError, TypeError, AttributeError):
        return None
    return ExportedFile(folder, content, tuple(_speeds(folder)))


def _speeds(folder: FilePath) -> list[Mapping[str, Any]]:
    try:
        found = read_json(exported_speed(folder), ExperimentError)
    except SposError:
        return []
    rows = [x for x in found if isinstance(x, Mapping)] if isinstance(found, list) else []
    return [x for x in rows if is_finite(x.get("p50_ms")) and is_finite(x.get("p90_ms"))]


def exported_table(
    found: ExportedFile, candidates: Sequence[Candidate], task: Task | None
) -> Table:
    """Return the figures of the file beside those of the search.

    Parameters
    ----------
    found
        The file.
    candidates
        Of the search, perhaps with the path of the file.
    task
        Says how figures are called and written.
    """
    candidate = found.candidate_of(candidates)
    costs = candidate.costs if candidate else {}
    proof = found.content["verification"]
    rows = []
    for name, value in (proof["file"] or {}).items():
        if name == "num_images":
            continue
        figure = task.figure(name) if task else plain_figure(name)
        title = figure.full_title
        searched = candidate.metrics.get(name) if candidate else None
        rows.append(
            [f"{title}, {proof['images']}", _number(searched, figure), _number(value, figure)]
        )
    for speed in found.speeds:
        predicted = costs.get(f"{LATENCY}({speed.get('runtime')})")
        title = (
            f"latency in {speed.get('runtime')} (ms), {speed.get('batch')} image(s), "
            f"{speed.get('threads')} thread(s)"
        )
        rows.append(
            [title, _number(predicted), f"{speed['p50_ms']:.4g} (p90 {speed['p90_ms']:.4g})"]
        )
    size = next((x for x in SIZES if x in costs), None)
    written = format_metric("size_bytes", found.content["bytes"])
    rows.append(["bytes", format_metric(size, costs[size]) if size else "-", written])
    return Table(["figure", "search", found.content["file"]], rows)


PLAIN = plain_figure("latency")


def _number(value: Any, figure: Figure = PLAIN) -> str:
    return figure.number(value) if is_finite(value) else "-"


def exported_note(found: ExportedFile, best: Mapping[str, Any]) -> str:
    """Return where the file is, and whose it is, in a sentence."""
    whose = "the best path" if found.path == best else "another path than the best one"
    kind = str(found.content.get("weights", {}).get("kind", ""))
    weights = "the weights of the supernet" if kind == "of the supernet" else "weights of its own"
    return f"{found.folder.name} has {whose}, with {weights}."
