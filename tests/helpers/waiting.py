"""Waiting for what other processes and threads do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 300.0
"""Seconds after which something that must happen counts as never.

Many times what anything takes on a machine that does nothing else: other work is no reason to fail,
and what happens is not waited for any longer.
"""

INTERVAL = 0.05
"""Seconds between two looks."""


def wait_until(happened: Callable[[], Found]) -> Found:
    """Wait until a function returns something that counts as true, and return that."""
    end = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(INTERVAL)
    return found
