"""Figures of rankings: accuracies over scores, and which choices are ranked too high."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nni_spos.display.figures import open_panels, save
from nni_spos.metrics import format_metric
from nni_spos.ranking.choice_bias import ChoiceBias

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RankingPanel:
    """A panel of `plot_rankings`.

    Parameters
    ----------
    title
        Above it.
    scores
        What each path reaches with the supernet's weights, such as an accuracy in percent.
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
    title: str = "accuracy (%)",
) -> None:
    """Draw what each path reaches alone over its score, one panel a score, as PNG.

    Below it goes what choices are ranked too high or too low, if that is known.

    Parameters
    ----------
    panels
        What is on the horizontal axes.
    accuracies
        What each path reaches alone, such as an accuracy in percent.
    flops
        Multiply-adds of each path, which colour it.
    file
        Where the figure goes; missing folders are made.
    title
        What the figure of the paths is called.
    """
    from matplotlib.ticker import FuncFormatter

    biased = all(panel.biases for panel in panels)
    heights = [4.2, 2.4] if biased else [4.2]
    figure, rows = open_panels(4.5 * len(panels) + 1, heights, len(panels))
    for axes, panel in zip(rows[0], panels, strict=True):
        points = axes.scatter(panel.scores, accuracies, c=flops, s=14, cmap="viridis")
        axes.set(title=panel.title, xlabel=f"{title} with the supernet's weights")
    rows[0][0].set_ylabel(f"stand-alone {title}")
    shown = FuncFormatter(lambda cost, _: format_metric("flops", cost))
    figure.colorbar(points, ax=rows[0], label="multiply-adds", format=shown)
    if biased:
        _draw_biases(figure, rows[1], [panel.biases for panel in panels])
    save(figure, file)


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
