"""What another user of this machine can do; only root can become one."""

import contextlib
import encodings.idna  # noqa: F401  (another user may not be able to read Python's library)
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can act as another user"
)


def as_another_user(function, *arguments):
    """Return what a function returns, or raise what it raises, in a process of another user."""
    return begin_as_another_user(function, *arguments)()


def begin_as_another_user(function, *arguments):
    """Begin that, and return a function that waits for its end."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = True, function(*arguments)
        except BaseException as problem:
            answer = False, problem
        with open(write, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(write)

    def end():
        with open(read, "rb") as stream:
            content = stream.read()
        os.waitpid(child, 0)
        succeeded, value = pickle.loads(content)
        if not succeeded:
            raise value
        return value

    return end


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """Return a new folder that all users may write to; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder)
