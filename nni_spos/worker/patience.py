"""How long a trial waits for its worker.

A worker that works says so once a second to every trial that waits, from a thread of its own, with
a number that grows with all that it does. So a trial can tell one that is busy, however long, from
one that is stopped, swapped out or waits for a device that will never answer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

HEARTBEAT = "heartbeat"
"""What a message of a worker has that is no answer yet."""

HEARTBEAT_S = 1.0
"""Seconds between two of them."""

SILENCE_S = 300.0
"""Seconds without any word of a worker, or until a new one listens, after which it is ended.

A machine that swaps may well keep every process from running for a minute.
"""

STALL_S = 3600.0
"""Seconds in which a worker says that it lives, but does nothing, after which it is ended.

It counts as something if one batch of images is scored on one path, a class of images is found, or
a few images are decoded, see `nni_spos.display.progress.note_progress`: a large data set takes long
to open, but each of these takes seconds at most.
"""

TICK_S = 1.0
"""Most seconds that are waited at a time.

Only so many count for one time: a whole experiment may be stopped, and all of it goes on later.
"""

MAX_MESSAGE = 1 << 20
"""Bytes that a question or an answer may have."""

T = TypeVar("T")


class Unresponsive(Exception):
    """A worker does not do anything any more; the text says how that shows."""


class Patience:
    """Seconds that this process waited in vain.

    Parameters
    ----------
    limit_s
        How many there may be.
    """

    def __init__(self, limit_s: float):
        self.limit_s = limit_s
        self.reset()

    def reset(self) -> None:
        """Begin anew: there was something."""
        self.waited_s = 0.0

    def add(self, seconds: float) -> bool:
        """Count what was waited just now; return whether that was too much."""
        self.waited_s += min(seconds, 2 * TICK_S)
        return self.waited_s >= self.limit_s


def receive_answer(connection: Connection) -> dict[str, Any]:
    """Return what a worker answers to the question that it was asked.

    Raises
    ------
    Unresponsive
        It is silent, or does nothing, for too long.
    EOFError, OSError
        It is gone.
    ValueError
        It sends what is no answer.
    """
    silence, stall = Patience(SILENCE_S), Patience(STALL_S)
    beat: dict[str, Any] = {}
    while True:
        begin = time.monotonic()
        has_message = connection.poll(TICK_S)
        waited = time.monotonic() - begin
        is_silent, is_stalled = silence.add(waited), stall.add(waited)
        if has_message:
            message = dict(json.loads(connection.recv_bytes(MAX_MESSAGE)))
            if HEARTBEAT not in message:
                return message
            silence.reset()
            if message[HEARTBEAT] != beat:
                beat = message[HEARTBEAT]
                stall.reset()
                is_stalled = False
        elif is_silent:
            raise Unresponsive(f"it has said nothing for {silence.limit_s:.0f} s")
        if is_stalled:
            raise Unresponsive(
                f"it has done nothing for {stall.limit_s:.0f} s, with {beat.get('share', 0.0):.0%} "
                "of the paths scored"
            )


class Bounded(Generic[T]):
    """A function that can wait for a worker for ever, in a thread that then is left behind.

    Parameters
    ----------
    function
        Without arguments.
    """

    def __init__(self, function: Callable[[], T]):
        self._function = function
        self._result: list[T] = []
        self._problem: Exception | None = None

    def call(self) -> T:
        """Return what it returns, or raise what it raises; Unresponsive after `SILENCE_S`."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        silence = Patience(SILENCE_S)
        while thread.is_alive():
            begin = time.monotonic()
            thread.join(TICK_S)
            if silence.add(time.monotonic() - begin) and thread.is_alive():
                raise Unresponsive(f"it has said nothing for {silence.limit_s:.0f} s")
        if self._problem is not None:
            raise self._problem
        return self._result[0]

    def _run(self) -> None:
        try:
            self._result.append(self._function())
        except Exception as problem:
            self._problem = problem
