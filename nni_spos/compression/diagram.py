"""A network beside what it became, as a diagram: every unit before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nni_spos.compression.pipeline import Compression
from nni_spos.conversion.choices import largest
from nni_spos.display.titles import shorten
from nni_spos.metrics import format_metric, metric_title
from nni_spos.report.drawing import FAINT, GREY, Chart, colour_of, draw_box, finish, open_figure
from nni_spos.report.units import RULE, ReportedUnit, divide

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRIC = "flops"
"""What the bars are of: every network has it."""

ROW, PER_INCH = 0.32, 10 / 4.5
"""Inches of a unit, and units of the axes in an inch."""

NAMES, BOX, GAP, BARS, END = 4.6, 1.9, 0.5, 2.4, 1.9
"""Widths of the columns: names, a box, the arrow between two boxes, bars, and their figures."""


def draw_units(found: Compression) -> Chart:
    """Draw what every unit was and became, with what it costs, in the order of the network."""
    table = found.tables[METRIC]
    paths = largest(found.plan), found.result.path
    sides = [divide(dict(path), table.space, {METRIC: table}) for path in paths]
    pairs = list(zip(*sides, strict=True))
    width = NAMES + 2 * BOX + GAP + BARS + END
    top = max([x.costs[METRIC] for x in sides[0]], default=0) or 1
    with open_figure(width / PER_INCH, ROW * (len(pairs) + 1) + 0.2, layout="none") as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(len(pairs) + 0.7, -0.6))
        axes.axis("off")
        lefts = NAMES, NAMES + BOX + GAP
        for left, title in zip(lefts, ("original", "result"), strict=True):
            axes.text(left + BOX / 2, 0, title, ha="center", va="center", color=GREY)
        bars = lefts[1] + BOX + 0.3
        axes.text(bars, 0, metric_title(METRIC), va="center", color=GREY)
        for row, (before, after) in enumerate(pairs, start=1):
            axes.text(NAMES - 0.2, row, shorten(before.name, 34), ha="right", va="center")
            for left, unit in zip(lefts, (before, after), strict=True):
                _draw_choices(axes, row, left, unit)
            if before.choices != after.choices:
                _draw_change(axes, row, lefts[1])
            if before.costs[METRIC]:
                _draw_bars(axes, row, bars, [x.costs[METRIC] / top for x in (before, after)])
                cost = format_metric(METRIC, after.costs[METRIC])
                axes.text(bars + BARS, row, cost, va="center", fontsize=8)
        return finish(figure, "compression", _caption(), _describe(pairs))


def _caption() -> str:
    return (
        "What every unit was and became. A box is a choice, its colour the choice's place among "
        "those of its unit. The faint bar is what the unit cost, the full one what it costs now. "
        f"{RULE}"
    )


def _describe(pairs: list[tuple[ReportedUnit, ReportedUnit]]) -> str:
    changes = [
        f"{label} {before.choices[label]} to {choice}"
        for before, after in pairs
        for label, choice in after.choices.items()
        if before.choices[label] != choice
    ]
    return f"Units that changed, from the images to the outputs: {', '.join(changes) or 'none'}."


def _draw_choices(axes: Axes, row: int, left: float, unit: ReportedUnit) -> None:
    each = BOX / len(unit.choices)
    for number, (label, choice) in enumerate(unit.choices.items()):
        colour = colour_of(*unit.places[label])
        draw_box(axes, row, left + number * each, each, colour, str(choice))


def _draw_change(axes: Axes, row: int, left: float) -> None:
    style = {"arrowstyle": "-|>", "color": GREY, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (left - 0.04, row), (left - GAP + 0.04, row), arrowprops=style)


def _draw_bars(axes: Axes, row: int, left: float, shares: list[float]) -> None:
    """Draw what a unit cost, and what it costs, as shares of the most that any costs."""
    room = BARS - 0.2
    for share, colour in zip(shares, (FAINT, "#0072B2"), strict=True):
        axes.barh(row, room * share, 0.4, left, color=colour)
