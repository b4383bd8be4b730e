"""Loading PyTorch, after what needs nothing has been checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nni_spos.display.announcement import announce
from nni_spos.process.imports import is_loaded, many_imports


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import PyTorch, and what needs it, within this context, in a process of our own."""
    if not is_loaded():
        announce("loading PyTorch")
    with many_imports():
        yield
