"""Printing to streams that lack some characters, are full or are closed: no reason to fail.

What is printed tells of the work, and the work goes on without it: a training does not end because
a terminal did.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

SPELLED = {"±": "+-", "…": "..."}
"""What is printed instead of our own characters."""

_HANDLER = "nni_spos.spelled"


PIPE_EXIT_CODE = 128 + signal.Signals.SIGPIPE if hasattr(signal, "SIGPIPE") else 1
"""Of a command whose output nobody reads any more, as shells give it."""


class _Tolerant(io.RawIOBase):
    """A file that takes what cannot be written, and remembers why it could not."""

    def __init__(self, file: io.FileIO):
        self._file = file
        self.problem: OSError | None = None

    def write(self, data: Any) -> int:
        if self.problem is None:
            try:
                return self._file.write(data) or 0
            except BlockingIOError:
                raise
            except OSError as problem:
                self.problem = problem
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()


class Written:
    """What became of standard output.

    Attributes
    ----------
    problem : OSError or None
        Why not all of it could be written.
    """

    problem: OSError | None = None

    @property
    def nobody_reads(self) -> bool:
        """Whether it went to a program that has ended, such as ``head``."""
        return self.problem is not None and self.problem.errno == errno.EPIPE


@contextlib.contextmanager
def tolerant_streams() -> Iterator[Written]:
    """Within this context nothing fails because standard output or error cannot be written.

    Yields
    ------
    What became of standard output; known after the context.
    """
    _open_missing()
    before, found = (sys.stdout, sys.stderr), Written()
    sys.stdout, output = _tolerant(sys.stdout)
    sys.stderr, _ = _tolerant(sys.stderr)
    streams = sys.stdout, sys.stderr
    try:
        yield found
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
        found.problem = output.problem if output else None


def _open_missing() -> None:
    """Open what a shell closed: the next file would get its number, and messages as content."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            # Not by its number, which a library may have got since.
            handle = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(handle, "w" if number else "r", encoding="utf-8"))


def _tolerant(stream: TextIO) -> tuple[TextIO, _Tolerant | None]:
    """Return a stream to the same file that takes what cannot be written; others as they are."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is no buffer
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(raw, io.FileIO):
        return stream, None
    with contextlib.suppress(OSError):
        stream.flush()
    file = _Tolerant(raw)
    text = io.TextIOWrapper(
        file if raw is buffer else io.BufferedWriter(file),  # type: ignore[type-var]
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return text, file


def allow_any_text(*streams: TextIO) -> None:
    """Let streams print every text; what they cannot encode is spelled, or given by its number."""
    codecs.register_error(_HANDLER, _spell)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _spell(problem: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    text = problem.object[problem.start : problem.end]
    spelled = (SPELLED.get(x, x.encode("ascii", "backslashreplace").decode()) for x in text)
    return "".join(spelled), problem.end
