"""Tests in forks of their own: what they load does not stay in the process that tests."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Let a test run in a fork, as OpenVINO's have to: beside PyTorch a process crashed later."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                test(*arguments, **named)
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return run
