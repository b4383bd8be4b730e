"""Figures as PNG files. matplotlib is imported when one is drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nni_spos.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def open_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its axes."""
    figure, [[axes]] = open_panels(width, [height], 1)
    return figure, axes


def open_panels(
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


def save(figure: Figure, file: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; missing folders are made."""
    write_atomically(file, lambda stream: figure.savefig(stream, format="png", dpi=150))
