"""Why candidates failed, each reason once."""

from __future__ import annotations

from collections.abc import Iterable

from nni_spos.evolution.candidate import Candidate

LOG = " (see "
"""What comes before the log that a reason names. Each trial has a log of its own."""

MOST_REASONS = 3
"""Reasons that a message names."""


def distinct_reasons(candidates: Iterable[Candidate]) -> list[str]:
    """Return the reasons of failed candidates, sorted.

    Of reasons that differ only in the log that they name, the first one stays.

    Examples
    --------
    >>> from nni_spos.evolution import State
    >>> reasons = ["no memory (see /a/log)", "no memory (see /b/log)", "killed"]
    >>> distinct_reasons(Candidate({}, 0, 0, {}, State.FAILED, reason=x) for x in reasons)
    ['killed', 'no memory (see /a/log)']
    """
    found: dict[str, str] = {}
    for candidate in candidates:
        if candidate.reason:
            text = candidate.reason.rpartition(LOG)[0] or candidate.reason
            found.setdefault(text, candidate.reason)
    return sorted(found.values())
