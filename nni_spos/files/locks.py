"""Folders that one process at a time works in."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path as FilePath

from nni_spos.errors import SposError
from nni_spos.files.owned import open_own

POLL_S = 0.05
"""Seconds between two tries to take a lock."""

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""What the system says of a lock that another process has; anything else is no lock at all."""


class NoLocksError(OSError):
    """The file system has no locks; the text is one line."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


@contextlib.contextmanager
def exclusive(file: FilePath, timeout: float, refusal: SposError) -> Iterator[None]:
    """Hold a lock; it is free again when the process ends, however it does.

    The lock is one of the system, on a file that is neither written nor emptied.

    Parameters
    ----------
    file
        The lock, which stays on the disk; missing folders are made.
    timeout
        Seconds to wait for another process; negative: for ever.
    refusal
        Raised if it still holds the lock then.

    Raises
    ------
    nni_spos.files.owned.NotOwnError
        The file is a link, not a file or another user's.
    NoLocksError
        The file system has no locks.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = _acquire(file, timeout, refusal)
    try:
        yield
    finally:
        # Closing is not enough: processes that were forked meanwhile have the handle, too.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _acquire(file: FilePath, timeout: float, refusal: SposError) -> int:
    end = time.monotonic() + timeout
    while (handle := _try(file)) is None:
        if timeout >= 0 and time.monotonic() >= end:
            raise refusal
        time.sleep(POLL_S)
    return handle


def _try(file: FilePath) -> int | None:
    """Return the handle of the lock, or None if another process has it."""
    handle = open_own(file, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same(handle, file):
            return handle
    except OSError as problem:
        if problem.errno not in HELD:
            os.close(handle)
            reason = os.strerror(problem.errno) if problem.errno else str(problem)
            raise NoLocksError(
                problem.errno,
                f"cannot be locked ({reason}): this file system has no locks. Use an output folder "
                "on another one",
                os.fspath(file),
            ) from None
    os.close(handle)
    return None


def _is_same(handle: int, file: FilePath) -> bool:
    """Whether a file that was opened is still the one of its name: it may have been deleted."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(file))
    except FileNotFoundError:
        return False
