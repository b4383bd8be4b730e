"""What another user of this machine can do; only root can become one."""

import os
import pickle

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can act as another user"
)


def as_another_user(function, *arguments):
    """Return what a function returns, or raise what it raises, in a process of another user."""
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
    with open(read, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    succeeded, value = pickle.loads(content)
    if not succeeded:
        raise value
    return value
