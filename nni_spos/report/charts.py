"""Charts of a report: results against costs, generations, and choices over the generations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nni_spos.constraint import Constraint
from nni_spos.display.titles import shorten
from nni_spos.metrics import format_metric, metric_title
from nni_spos.report.drawing import FAINT, GREY, INK, Chart, finish, open_figure, shade
from nni_spos.report.figures import (
    Frequencies,
    Generation,
    best_of_parts,
    finished,
    front_points,
)
from nni_spos.report.gathering import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 4.5, 3.4
"""Inches of a chart: its text can be read on a phone, where it is drawn at four fifths."""

MOST_POINTS = 2000
"""Points that stay lines and circles; more become one picture, which is smaller."""

SEARCH, OTHER = "#0072B2", "#D55E00"
PANEL_WIDTH = 1.9
"""Inches of the chart of one label."""


def draw_charts(report: Report) -> list[Chart]:
    """Draw results against every cost of interest, up to a limit, and by generation."""
    return [
        *(_draw_results(report, metric) for metric in report.drawn_metrics),
        *([] if report.tightest is None else [_draw_rise(report, report.tightest)]),
        _draw_generations(report),
    ]


def draw_choices(frequencies: Sequence[Frequencies]) -> list[Chart]:
    """Draw one small heat map for every label."""
    return [_draw_label(entry, f"choices{number}") for number, entry in enumerate(frequencies, 1)]


def _draw_results(report: Report, metric: str) -> Chart:
    from matplotlib.ticker import MaxNLocator

    candidates = finished(report.results.candidates)
    costs = [candidate.costs[metric] for candidate in candidates]
    values = [candidate.metrics[report.objective] for candidate in candidates]
    front = front_points(candidates, report.objective, metric)
    with open_figure(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot()
        shade(axes, FAINT)
        points = axes.scatter(
            costs,
            values,
            c=[candidate.generation for candidate in candidates],
            cmap="cividis_r",
            s=18,
            edgecolors="white",
            linewidths=0.3,
            rasterized=len(costs) > MOST_POINTS,
        )
        axes.plot(*zip(*front, strict=True), color=INK, linewidth=1.2, label="Pareto front")
        best = report.best
        axes.plot(
            best.costs[metric],
            best.metrics[report.objective],
            marker="*",
            markersize=13,
            color=OTHER,
            markeredgecolor="white",
            linestyle="none",
            label="best",
        )
        limits = [limit for limit in report.constraints if limit.metric == metric]
        _draw_limits(axes, limits, costs)
        _mark_costs(axes, metric)
        axes.set(xlabel=metric_title(metric), ylabel=report.result_title(report.objective))
        figure.colorbar(points, label="generation", pad=0.02).locator = MaxNLocator(6, integer=True)
        figure.legend(loc="outside upper left", ncols=4)
        best_text = (
            f"{best.metrics[report.objective]:.4g} at {format_metric(metric, best.costs[metric])}"
        )
        return finish(
            figure,
            f"results-{re.sub('[^a-z0-9]+', '-', metric).strip('-')}",
            f"All {len(candidates)} candidates; {len(front)} of them on the Pareto front.",
            f"Scatter plot of {report.result_title(report.objective)} against "
            f"{metric_title(metric)} for {len(candidates)} candidates. The best has {best_text}.",
        )


def _draw_rise(report: Report, limit: Constraint) -> Chart:
    """Draw how the best result rises towards a limit."""
    metric, best = limit.metric, report.best
    candidates = finished(report.results.candidates)
    cost, value = best.costs[metric], best.metrics[report.objective]
    limited = f"{metric} <= {format_metric(metric, limit.high)}"
    rise = [*front_points(candidates, report.objective, metric), (limit.high, value)]
    parts = best_of_parts(candidates, report.objective, metric, limit.high)
    with open_figure(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot()
        shade(axes, FAINT)
        axes.step(
            *zip(*rise, strict=True),
            where="post",
            color=INK,
            linewidth=1.2,
            label="best up to a cost",
        )
        axes.plot(
            *zip(*parts, strict=True),
            color=SEARCH,
            marker="o",
            markersize=5,
            markerfacecolor="white",
            linestyle="none",
            label="best of each 5 % of the limit",
        )
        axes.axvline(limit.high, color=OTHER, linewidth=1.2, linestyle="--", label=limited)
        axes.axvspan(cost, limit.high, color=OTHER, alpha=0.1, linewidth=0, label="not used")
        _mark_costs(axes, metric)
        axes.set(xlabel=metric_title(metric), ylabel=report.result_title(report.objective))
        figure.legend(loc="outside upper left", ncols=2)
        share = f"{100 * cost / limit.high:.3g} % of '{limited}'"
        return finish(
            figure,
            "rise",
            f"The best result that a cost allows, towards the limit. The best path uses {share}.",
            f"Rising line of the best {report.result_title(report.objective)} up to each cost, "
            f"which ends at {value:.4g} with {share}.",
        )


def _draw_limits(axes: Axes, limits: Sequence[Constraint], costs: Sequence[float]) -> None:
    """Draw the limits that are near the candidates; others would leave these no room."""
    low, high = min(costs), max(costs)
    reach = high - low or abs(high) or 1
    for limit in limits:
        # Of a share the report does not know what it is a share of.
        bounds = [] if limit.is_share else [x for x in (limit.low, limit.high) if math.isfinite(x)]
        near = [x for x in bounds if low - reach <= x <= high + reach]
        style: dict[str, Any] = {"color": OTHER, "linewidth": 1.2, "linestyle": "--"}
        where = "" if near or limit.is_share else " (outside)"
        axes.plot([], [], label=f"{limit}{where}", **style)
        for bound in near:
            axes.axvline(bound, **style)


def _mark_costs(axes: Axes, metric: str) -> None:
    """Label the axis of costs with round numbers of the metric's unit, also of a binary one."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_xlim()
    is_binary = format_metric(metric, high).endswith("i")
    unit = 1024 ** max(0, int(math.log(high, 1024))) if is_binary else 1
    ticks = [x * unit for x in MaxNLocator(5).tick_values(low / unit, high / unit)]
    axes.set_xticks([x for x in ticks if low <= x <= high])
    axes.xaxis.set_major_formatter(lambda x, _: format_metric(metric, x))


def _draw_generations(report: Report) -> Chart:
    series = [(report.algorithm, report.generations, SEARCH, "o")]
    if report.comparison is not None:
        other = report.comparison
        series.append((other.name, other.generations, OTHER, "s"))
    with open_figure(WIDTH, HEIGHT) as figure:
        axes = figure.add_subplot()
        shade(axes, FAINT)
        for name, generations, colour, marker in series:
            _draw_series(axes, name, generations, colour, marker)
        axes.set(
            xlabel="candidates so far (one mark per generation)",
            ylabel=report.result_title(report.objective),
        )
        axes.set_xlim(left=0)
        figure.legend(loc="outside upper left", ncols=2)
        ends = "; ".join(
            f"{name}: best {rows[-1].best_so_far:.4g}, mean from {rows[0].mean:.4g} in the first "
            f"to {rows[-1].mean:.4g} in the last generation"
            for name, rows, _, _ in series
        )
        return finish(figure, "generations", f"{ends}.", f"Lines over the generations. {ends}.")


def _draw_series(
    axes: Axes, name: str, generations: Sequence[Generation], colour: str, marker: str
) -> None:
    number = [row.num_so_far for row in generations]
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
    best, mean = [row.best_so_far for row in generations], [row.mean for row in generations]
    axes.plot(number, best, label=f"{name}: best so far", **style)
    hollow = {**style, "linestyle": "--", "markerfacecolor": "white"}
    axes.plot(number, mean, label=f"{name}: mean", **hollow)


def _draw_label(entry: Frequencies, name: str) -> Chart:
    from matplotlib.ticker import MaxNLocator

    rows, columns = len(entry.choices), len(entry.generations)
    with open_figure(PANEL_WIDTH, 0.62 + 0.2 * rows) as figure:
        axes = figure.add_subplot()
        axes.imshow(
            entry.shares,
            cmap="Blues",
            vmin=0,
            vmax=1,
            aspect="auto",
            interpolation="none",
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        )
        axes.set_yticks(range(rows), [shorten(str(choice), 12) for choice in entry.choices])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        first = entry.generations[0]
        axes.xaxis.set_major_formatter(lambda x, _: str(int(x) + first))
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set(visible=True, color=GREY, linewidth=0.5)
        axes.set_title(shorten(entry.label, 24))
        axes.set_xlabel("generation", fontsize=8)
        last = {choice: row[-1] for choice, row in zip(entry.choices, entry.shares, strict=True)}
        favourite = max(last, key=last.__getitem__)
        alt = (
            f"{entry.label}: in the last generation {favourite} is chosen most, in "
            f"{100 * last[favourite]:.0f} % of the candidates."
        )
        return finish(figure, name, entry.label, alt)
