"""What another user of this machine can do; only root can become one."""

import contextlib
import encodings.idna  # noqa: F401  (another user may not be able to read Python's library)
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_a_fork import begin_in_a_fork

NOBODY = 65534

needs_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can act as another user"
)


def as_another_user(function, *arguments):
    """Return what a function returns, or raise what it raises, in a process of another user."""
    return begin_as_another_user(function, *arguments)()


def begin_as_another_user(function, *arguments):
    """Begin that, and return a function that waits for its end."""

    def call():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return function(*arguments)

    return begin_in_a_fork(call)


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """Return a new folder that all users may write to; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder)
