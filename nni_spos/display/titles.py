"""Names that fit where they are shown."""

from __future__ import annotations


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many characters.

    >>> shorten("a_very_long_name", 8)
    'a_very_…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"
