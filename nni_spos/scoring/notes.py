"""Warnings about the scoring that a user does not see where they are given, and so are handed on.

A worker gives them to the trials, a trial reports them with its result, the tuner keeps them beside
the journal, and ``nni-spos start`` shows them.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from nni_spos.errors import FileWarning, FormatWarning, ScoringWarning, one_line

NOTES = "notes"
"""Name under which a trial reports them; they are no metric of its path."""

MOST = 20
"""Notes that are kept of a search."""

_KINDS = (FileWarning, FormatWarning, ScoringWarning)


@contextlib.contextmanager
def collecting(notes: list[str]) -> Iterator[None]:
    """Add what is warned of in the block, each once; other warnings are shown as usual."""
    with warnings.catch_warnings():
        for kind in _KINDS:
            warnings.simplefilter("always", kind)
        show = warnings.showwarning

        def collect(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            if issubclass(category, _KINDS):
                add_notes(notes, [str(message)])
            else:
                show(message, category, *where, **more)

        warnings.showwarning = collect
        yield


def add_notes(notes: list[str], new: object) -> bool:
    """Add those of a list that are new, and return whether there are any; anything may be given."""
    number = len(notes)
    for note in new if isinstance(new, list | tuple) else ():
        if isinstance(note, str) and len(notes) < MOST and (line := one_line(note)) not in notes:
            notes.append(line)
    return len(notes) > number


def reported_notes(value: Any) -> object:
    """Return the notes in what a trial reported, whatever that is."""
    return value.get(NOTES) if isinstance(value, Mapping) else None
