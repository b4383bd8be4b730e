"""SVG from matplotlib, as text that can stand in an HTML page beside others."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.display.titles import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, FAINT = "#222222", "#767676", "#d8d8d8"

PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2", "#999999")
"""Okabe and Ito's colours, told apart by colour-blind readers too; the light ones first."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: smaller, and it can be searched and selected
    "text.parse_math": False,  # a label may hold a dollar sign
    "font.size": 9.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
}


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Parameters
    ----------
    name
        Part of file names and of the ids in the SVG, unique in a report.
    caption
        What can be seen, and how to read it.
    alt
        The same for those who do not see it.
    svg
        The element ``<svg>``, without anything around it.
    width
        In pixels of 1/96 inch.
    """

    name: str
    caption: str
    alt: str
    svg: str
    width: int


@contextmanager
def open_figure(width: float, height: float, **arguments: Any) -> Iterator[Figure]:
    """Give an empty figure of a size in inches, in our style; further arguments are Figure's."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No pyplot: it would choose a window system, and keep every figure.
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), **{"layout": "constrained", **arguments})
        FigureCanvasAgg(figure)
        yield figure


def finish(figure: Figure, name: str, caption: str, alt: str) -> Chart:
    """Turn a figure into a chart: the same figure is the same text, in any process."""
    import matplotlib

    stream = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=no_metadata, dpi=150, transparent=True)
    return Chart(
        name,
        caption,
        alt,
        _element(stream.getvalue(), name, alt),
        round(96 * figure.get_figwidth()),
    )


def as_file(chart: Chart) -> str:
    """Return a chart as the text of an SVG file."""
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return chart.svg.replace("<svg ", f"<svg {namespaces} ", 1) + "\n"


def shade(axes: Axes, colour: str) -> None:
    """Draw a light grid behind everything else."""
    axes.grid(color=colour, linewidth=0.6)
    axes.set_axisbelow(True)


def colour_of(place: int, count: int) -> str:
    """Return a light colour for one of several choices; many are shades from light to dark."""
    if count <= len(PALETTE):
        return PALETTE[place]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["cividis"](0.35 + 0.65 * place / (count - 1)))


def text_colour(background: str) -> str:
    """Return black or white, whichever is easier to read on a background."""
    from matplotlib.colors import to_rgb

    linear = [
        x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(background)
    ]
    luminance = _weighted(linear)
    return "white" if luminance < 0.18 else "black"


def draw_box(axes: Axes, row: float, left: float, width: float, colour: str, text: str) -> None:
    """Draw a choice: a box with rounded corners, 0.66 high, and a text that is cut to its width.

    The axes are 10 wide for 4.5 inches.
    """
    from matplotlib.patches import FancyBboxPatch

    box = FancyBboxPatch(
        (left + 0.04, row - 0.33),
        width - 0.08,
        0.66,
        boxstyle="round,pad=0,rounding_size=0.14",
        mutation_aspect=1,
        facecolor=colour,
        edgecolor="none",
    )
    axes.add_patch(box)
    text = shorten(text, int(7.5 * width))
    axes.text(left + width / 2, row, text, ha="center", va="center", color=text_colour(colour))


def _weighted(linear: Sequence[float]) -> float:
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _element(document: str, name: str, alt: str) -> str:
    """Return the element of an SVG document, with ids that no other chart of the page has."""
    element = document[document.index("<svg ") :].strip()
    element = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", element)
    element = re.sub(r' id="', f' id="{name}-', element)
    element = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt)}" ', 1)
