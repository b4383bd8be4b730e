"""Folders that one process at a time works in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path as FilePath

import filelock

from nni_spos.errors import SposError


@contextlib.contextmanager
def exclusive(file: FilePath, timeout: float, refusal: SposError) -> Iterator[None]:
    """Hold a lock; it is free again when the process ends, however it does.

    Parameters
    ----------
    file
        The lock, which stays on the disk; missing folders are made.
    timeout
        Seconds to wait for another process; negative: for ever.
    refusal
        Raised if it still holds the lock then.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(file, timeout=timeout)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()
