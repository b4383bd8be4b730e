"""Keys that name columns of a table."""

from __future__ import annotations

from nni_spos.recipe.settings import TEXT, either, list_of, optional

Columns = str | tuple[str, ...] | None
"""One column, or several."""

COLUMNS = optional(either(TEXT, list_of(TEXT, ""), "a column, or a list of columns"))
"""What such a key takes."""


def as_columns(value: str | list[str]) -> Columns:
    """Return what a recipe says as it is kept."""
    return value if isinstance(value, str) else tuple(value)
