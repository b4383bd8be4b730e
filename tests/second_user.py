"""Another user of this machine, for tests that root runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user"
)


def as_nobody(function: Callable[[], Any]) -> Any:
    """Return what a function returns, as JSON, in a process of a user with no rights of this one.

    That is a copy of this process, since the other user may not be allowed to read Python itself;
    so what the function needs must be imported. What it raises is returned as text.
    """
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                found = function()
            except Exception as problem:
                found = f"{type(problem).__name__}: {problem}"
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return json.loads(answer)


@contextlib.contextmanager
def shared_folder() -> Iterator[Path]:
    """Return a new folder that all users may write to; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o777)
        yield folder
    finally:
        shutil.rmtree(folder)
