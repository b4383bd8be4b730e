"""Importing PyTorch and NNI, which takes most of the time of a short command."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

HEAVIEST = "torch"
"""Once this is imported, little of what takes long is left."""


def is_loaded() -> bool:
    """Whether this process has imported what takes longest."""
    return HEAVIEST in sys.modules


@contextlib.contextmanager
def many_imports() -> Iterator[None]:
    """Import within this context without a look for garbage.

    A sixth of the time of the imports goes into hundreds of such looks, which find almost nothing
    (about 10 MB of 800), and each later one goes through the hundreds of thousands of functions
    and classes again. So they are not looked at then either: this is for a process of our own,
    whose objects from before the context may stay too. Where PyTorch is imported already, nothing
    is done.
    """
    if is_loaded() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
