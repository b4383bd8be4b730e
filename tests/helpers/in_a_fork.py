"""Functions in forks of the process that tests."""

from __future__ import annotations

import functools
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any


def begin_in_a_fork(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """Call a function in a fork. Return what waits for it, and returns or raises what it did."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        answer: tuple[bool, Any]
        try:
            answer = True, function(*arguments)
        except BaseException as problem:
            os.write(2, traceback.format_exc().encode())
            answer = False, problem
        # Whatever happens, this process must not go on as a second one that tests.
        try:
            with open(write, "wb") as stream:
                pickle.dump(answer, stream)
        finally:
            os._exit(0)
    os.close(write)

    def end() -> Any:
        with open(read, "rb") as stream:
            content = stream.read()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        succeeded, value = pickle.loads(content)
        if not succeeded:
            raise value
        return value

    return end


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test run in a fork, in which all that it loads stays.

    OpenVINO's have to: processes that had loaded it, and went on to test, have crashed.
    """

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        begin_in_a_fork(functools.partial(test, *arguments, **named))()

    return run
