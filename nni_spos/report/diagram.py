"""The best path as a diagram of the network, with what every unit costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nni_spos.display.titles import shorten
from nni_spos.metrics import format_metric, metric_title
from nni_spos.report.drawing import (
    FAINT,
    GREY,
    Chart,
    colour_of,
    draw_box,
    finish,
    open_figure,
)
from nni_spos.report.gathering import Report
from nni_spos.report.units import ReportedUnit, divide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, ROW = 4.5, 0.32
"""Inches of the diagram, and of one unit in it."""

BOX_LEFT, BOX_RIGHT, BAR_RIGHT = 1.0, 6.4, 8.6
"""Where the boxes, and the bars at their right, begin and end; the diagram is 10 wide."""

END_TEXT = "images", "output"


def draw_path(report: Report) -> Chart:
    """Draw the units of the best path from the images to the outputs."""
    metric = report.metrics[0]
    units = report.units or divide(report.best.path, report.space, {})
    fixed = report.fixed_costs.get(metric)
    rows = len(units) + 2 + (fixed is not None)
    shown = [unit.costs.get(metric) for unit in units]
    largest = max([cost for cost in [*shown, fixed] if cost is not None], default=0) or 1
    with open_figure(WIDTH, ROW * rows + 0.3, layout="none") as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 10), ylim=(rows + 0.3, -0.55))
        axes.axis("off")
        if report.units:
            title = f"{metric_title(metric)} of the unit"
            axes.text(BOX_RIGHT + 0.15, 0.1, title, color=GREY, va="center", fontsize=8)
        _draw_end(axes, 0, END_TEXT[0])
        for row, unit in enumerate(units, start=1):
            _draw_unit(axes, row, unit)
            _draw_bar(axes, row, metric, shown[row - 1], largest)
        _draw_arrow(axes, len(units) + 1)
        _draw_end(axes, len(units) + 1, END_TEXT[1])
        if fixed is not None:
            middle = (BOX_LEFT + BOX_RIGHT) / 2
            axes.text(middle, rows - 1, "all layers without a choice", ha="center", va="center")
            _draw_bar(axes, rows - 1, metric, fixed, largest)
        return finish(figure, "path", _caption(report), _describe(units))


def _caption(report: Report) -> str:
    text = "A box is a choice, its colour the choice's place among those of its unit."
    if not report.units:
        return text
    total = format_metric(report.metrics[0], report.best.costs[report.metrics[0]])
    return f"{text} The bars sum to {total} {metric_title(report.metrics[0])}."


def _describe(units: Sequence[ReportedUnit]) -> str:
    chosen = [f"{label} {choice}" for unit in units for label, choice in unit.choices.items()]
    return f"The best path from the images to the outputs: {', '.join(chosen)}."


def _draw_end(axes: Axes, row: int, text: str) -> None:
    middle = (BOX_LEFT + BOX_RIGHT) / 2
    box = {"boxstyle": "round,pad=0.35", "facecolor": "#f2f2f2", "edgecolor": GREY}
    axes.text(middle, row, text, ha="center", va="center", bbox=box)


def _draw_arrow(axes: Axes, row: int) -> None:
    """Draw the way into a row."""
    middle = (BOX_LEFT + BOX_RIGHT) / 2
    style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (middle, row - 0.36), (middle, row - 0.66), arrowprops=style)


def _draw_unit(axes: Axes, row: int, unit: ReportedUnit) -> None:
    _draw_arrow(axes, row)
    width = (BOX_RIGHT - BOX_LEFT) / len(unit.choices)
    if len(unit.choices) > 1:
        axes.text(BOX_LEFT - 0.2, row, shorten(unit.name, 6), ha="right", va="center", color=GREY)
    for number, (label, choice) in enumerate(unit.choices.items()):
        left, colour = BOX_LEFT + number * width, colour_of(*unit.places[label])
        draw_box(axes, row, left, width, colour, f"{label}: {choice}")


def _draw_bar(axes: Axes, row: int, metric: str, cost: float | None, largest: float) -> None:
    if cost is None:
        return
    left = BOX_RIGHT + 0.15
    length = (BAR_RIGHT - left) * cost / largest
    axes.barh(row, BAR_RIGHT - left, 0.4, left, color=FAINT, alpha=0.5)
    axes.barh(row, length, 0.4, left, color="#0072B2")
    axes.text(BAR_RIGHT + 0.1, row, format_metric(metric, cost), va="center", fontsize=8)
