"""Tables as text, for any format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Align = Callable[[str, int], str]


@dataclass(frozen=True)
class Table:
    """A table as text.

    Parameters
    ----------
    header
        Titles of the columns.
    rows
        Cells, those of numbers written for people.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


LEFT, RIGHT = str.ljust, str.rjust
"""How the cells of a column stand."""


def as_text(table: Table, align: Sequence[Align] | None = None) -> str:
    """Return a table as lines for a terminal, its columns two spaces apart.

    Parameters
    ----------
    table
        With at least one column; without a header if that is empty.
    align
        `LEFT` or `RIGHT` for each column; by default left.

    Examples
    --------
    >>> print(as_text(Table(["path", "cost"], [["k3", "7"], ["k5 k5", "13"]]), [LEFT, RIGHT]))
    path   cost
    k3        7
    k5 k5    13
    """
    rows = [row for row in (table.header, *table.rows) if row]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = list(zip(align or [LEFT] * len(widths), widths, strict=True))
    lines = [
        "  ".join(how(cell, width) for cell, (how, width) in zip(row, columns, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
