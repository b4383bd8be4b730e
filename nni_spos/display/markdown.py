"""Text and tables in Markdown."""

from __future__ import annotations

import html
import re
from typing import Any

from nni_spos.display.tables import Table


def escape_markdown(value: Any) -> str:
    r"""Return text that is only text in Markdown, also in the cell of a table.

    >>> print(escape_markdown("a|b <i>*c*"))
    a\|b &lt;i&gt;\*c\*
    """
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", text)


def as_markdown(table: Table) -> str:
    """Return a table."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    escaped = [[cell if cell == "---" else escape_markdown(cell) for cell in x] for x in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
