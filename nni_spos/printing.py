"""Printing to streams whose encoding lacks some characters: a table is no reason to fail."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

SPELLED = {"±": "+-", "…": "..."}
"""What is printed instead of our own characters."""

_HANDLER = "nni_spos.spelled"


def allow_any_text(*streams: TextIO) -> None:
    """Let streams print every text; what they cannot encode is spelled, or given by its number."""
    codecs.register_error(_HANDLER, _spell)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _spell(problem: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end]
    spelled = (SPELLED.get(x, x.encode("ascii", "backslashreplace").decode()) for x in text)
    return "".join(spelled), problem.end
