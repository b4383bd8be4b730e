"""Figures for people, from plain numbers. matplotlib is imported when one is drawn."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nni_spos.choice_bias import ChoiceBias
from nni_spos.constraint import format_metric
from nni_spos.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_latency(
    predicted: Sequence[float], measured: Sequence[float], file: str | os.PathLike[str]
) -> None:
    """Draw predicted against measured latencies of whole networks, as PNG.

    Parameters
    ----------
    predicted, measured
        Milliseconds, of the same networks.
    file
        Where the figure goes; missing folders are made.
    """
    figure, axes = _open_figure(5, 5)
    values = [*predicted, *measured]
    margin = 0.05 * (max(values) - min(values)) or 0.05 * max(values)
    limits = (min(values) - margin, max(values) + margin)
    axes.plot(limits, limits, color="0.6", linewidth=1, label="predicted = measured")
    axes.scatter(measured, predicted, s=18)
    axes.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel="measured latency of the whole network (ms)",
        ylabel="latency by the table (ms)",
        title=f"{len(measured)} random paths",
    )
    axes.legend(loc="upper left")
    _save(figure, file)


def plot_cost_distribution(
    metric: str,
    edges: Sequence[float] | npt.NDArray[np.float64],
    space: Sequence[float] | npt.NDArray[np.float64],
    prior: Sequence[float] | npt.NDArray[np.float64],
    bins: Sequence[tuple[float, float]],
    file: str | os.PathLike[str],
) -> None:
    """Draw what the paths of a space cost, and what a prior's do, as PNG.

    Parameters
    ----------
    metric
        Name of the cost.
    edges
        Of the histograms' intervals, shape (num_intervals + 1,).
    space, prior
        Share of all paths, and of the prior's, in each interval, shape (num_intervals,).
    bins
        Intervals that the prior draws from, shaded.
    file
        Where the figure goes; missing folders are made.
    """
    from matplotlib.ticker import FuncFormatter

    figure, axes = _open_figure(7, 4)
    for number, (low, high) in enumerate(bins):
        label = "bins of the prior" if number == 0 else None
        axes.axvspan(low, high, color="0.85", ec="white", linewidth=1, label=label)
    axes.stairs(space, edges, fill=True, alpha=0.6, label="all paths of the space")
    axes.stairs(prior, edges, color="C3", linewidth=1.5, label="paths of the prior")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: format_metric(metric, cost)))
    axes.set(xlabel=metric, ylabel="share of the paths")
    axes.set_ylim(bottom=0)
    axes.legend()
    _save(figure, file)


@dataclass(frozen=True)
class RankingPanel:
    """A panel of `plot_rankings`.

    Parameters
    ----------
    title
        Above it.
    scores
        Accuracy in percent of each path with the supernet's weights.
    biases
        Of the choices, drawn as a heat map below; of all panels or none.
    """

    title: str
    scores: Sequence[float]
    biases: Sequence[ChoiceBias] = ()


def plot_rankings(
    panels: Sequence[RankingPanel],
    accuracies: Sequence[float],
    flops: Sequence[float],
    file: str | os.PathLike[str],
) -> None:
    """Draw stand-alone accuracy over the score of each path, one panel a score, as PNG.

    Below it goes what choices are ranked too high or too low, if that is known.

    Parameters
    ----------
    panels
        What is on the horizontal axes.
    accuracies
        Stand-alone accuracy of each path in percent.
    flops
        Multiply-adds of each path, which colour it.
    file
        Where the figure goes; missing folders are made.
    """
    from matplotlib.ticker import FuncFormatter

    biased = all(panel.biases for panel in panels)
    heights = [4.2, 2.4] if biased else [4.2]
    figure, rows = _open_panels(4.5 * len(panels) + 1, heights, len(panels))
    for axes, panel in zip(rows[0], panels, strict=True):
        points = axes.scatter(panel.scores, accuracies, c=flops, s=14, cmap="viridis")
        axes.set(title=panel.title, xlabel="accuracy with the supernet's weights (%)")
    rows[0][0].set_ylabel("stand-alone accuracy (%)")
    shown = FuncFormatter(lambda cost, _: format_metric("flops", cost))
    figure.colorbar(points, ax=rows[0], label="multiply-adds", format=shown)
    if biased:
        _draw_biases(figure, rows[1], [panel.biases for panel in panels])
    _save(figure, file)


def _draw_biases(
    figure: Figure, row: Sequence[Axes], all_biases: Sequence[Sequence[ChoiceBias]]
) -> None:
    """Draw one heat map of units and choices for each score, with one scale for all."""
    largest = max(abs(x.bias) for biases in all_biases for x in biases) or 1.0
    for axes, biases in zip(row, all_biases, strict=True):
        units = [list(unit) for _, unit in itertools.groupby(biases, lambda x: x.label)]
        cells = np.full((max(map(len, units)), len(units)), np.nan)
        for column, unit in enumerate(units):
            cells[: len(unit), column] = [x.bias for x in unit]
        image = axes.imshow(cells, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
        names = {tuple(str(x.choice) for x in unit) for unit in units}
        positions = [str(position) for position in range(1, len(cells) + 1)]
        axes.set_yticks(range(len(cells)), names.pop() if len(names) == 1 else positions)
        axes.set_xticks(range(len(units)), [unit[0].label for unit in units], rotation=90)
    label = "ranked too high (+)\nor too low, percentiles"
    figure.colorbar(image, ax=list(row), label=label)


def _open_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its axes."""
    figure, [[axes]] = _open_panels(width, [height], 1)
    return figure, axes


def _open_panels(
    width: float, heights: Sequence[float], number: int
) -> tuple[Figure, list[list[Axes]]]:
    """Return an empty figure with rows of panels, sizes in inches, and the axes of each row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would choose a window system, and keep every figure.
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(
        len(heights), number, sharey="row", squeeze=False, height_ratios=list(heights)
    )
    return figure, [list(row) for row in rows]


def _save(figure: Figure, file: str | os.PathLike[str]) -> None:
    write_atomically(file, lambda stream: figure.savefig(stream, format="png", dpi=150))
