"""Figures of costs: what paths cost, and how well a latency table predicts."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nni_spos.display.figures import open_figure, save
from nni_spos.metrics import format_metric, metric_title


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
    figure, axes = open_figure(5, 5)
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
    save(figure, file)


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

    figure, axes = open_figure(7, 4)
    for number, (low, high) in enumerate(bins):
        label = "bins of the prior" if number == 0 else None
        axes.axvspan(low, high, color="0.85", ec="white", linewidth=1, label=label)
    axes.stairs(space, edges, fill=True, alpha=0.6, label="all paths of the space")
    axes.stairs(prior, edges, color="C3", linewidth=1.5, label="paths of the prior")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: format_metric(metric, cost)))
    axes.set(xlabel=metric_title(metric), ylabel="share of the paths")
    axes.set_ylim(bottom=0)
    axes.legend()
    save(figure, file)
