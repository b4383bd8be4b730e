"""Signals that end a command: what this process started is ended before it ends itself."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Ctrl-C; a scheduler, a service manager or ``kill``; the end of the terminal."""

_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class Terminated(KeyboardInterrupt):
    """Somebody sent a signal other than Ctrl-C's.

    Parameters
    ----------
    number
        The signal.
    """

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.exit_code = 128 + number
        """Of a command that it ended, as shells give it."""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within this context the first of `SIGNALS` raises; further ones are ignored.

    So what is ended meanwhile is ended to the end. Ctrl-C raises KeyboardInterrupt, the others
    `Terminated`.

    Without effect outside of the main thread, and on signals that the caller handles himself or
    ignores.
    """
    numbers = [number for number in SIGNALS if signal.getsignal(number) in _DEFAULTS]

    def end(number: int, frame: FrameType | None) -> None:
        for other in numbers:
            # Not SIG_IGN, which programs that are started from here would inherit.
            signal.signal(other, _ignore)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    with _handling(numbers, end):
        yield


@contextmanager
def deferred_signals() -> Iterator[None]:
    """What is done within this context is done to its end: `SIGNALS` take effect after that.

    Without effect outside of the main thread, and on signals that are ignored.
    """
    came: list[int] = []
    numbers = [x for x in SIGNALS if signal.getsignal(x) not in (signal.SIG_IGN, _ignore, None)]
    try:
        with _handling(numbers, lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


@contextmanager
def _handling(
    numbers: list[int], handler: Callable[[int, FrameType | None], Any]
) -> Iterator[None]:
    """Set the handler of some signals, on the main thread, and then the earlier ones again."""
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                stack.callback(signal.signal, number, signal.getsignal(number))
                signal.signal(number, handler)
        yield
