"""A word to a person who waits."""

from __future__ import annotations

import sys


def announce(text: str) -> None:
    """Say what is being done, where that takes over a second.

    It is a line on standard error, if that is a terminal: a log tells what came of it, and what
    another program reads from standard output stays as it is.
    """
    if sys.stderr.isatty():
        print(f"{text} ...", file=sys.stderr, flush=True)
