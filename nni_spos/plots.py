"""Figures for people, from plain numbers. matplotlib is imported when one is drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

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
    """

    title: str
    scores: Sequence[float]


def plot_rankings(
    panels: Sequence[RankingPanel],
    accuracies: Sequence[float],
    flops: Sequence[float],
    file: str | os.PathLike[str],
) -> None:
    """Draw stand-alone accuracy over the score of each path, one panel a score, as PNG.

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

    figure, all_axes = _open_panels(4.5 * len(panels) + 1, 4.2, len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        points = axes.scatter(panel.scores, accuracies, c=flops, s=14, cmap="viridis")
        axes.set(title=panel.title, xlabel="accuracy with the supernet's weights (%)")
    all_axes[0].set_ylabel("stand-alone accuracy (%)")
    shown = FuncFormatter(lambda cost, _: format_metric("flops", cost))
    figure.colorbar(points, ax=all_axes, label="multiply-adds", format=shown)
    _save(figure, file)


def _open_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its axes."""
    figure, (axes,) = _open_panels(width, height, 1)
    return figure, axes


def _open_panels(width: float, height: float, number: int) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of a size in inches with panels beside each other, and their axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would choose a window system, and keep every figure.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, number, sharey=True, squeeze=False)[0])


def _save(figure: Figure, file: str | os.PathLike[str]) -> None:
    write_atomically(file, lambda stream: figure.savefig(stream, format="png", dpi=150))
