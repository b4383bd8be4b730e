"""SIGTERM answered as Ctrl-C is: what this process started is ended before it ends itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""Of a command that SIGTERM ended, as shells give it."""


class Terminated(KeyboardInterrupt):
    """Somebody sent SIGTERM: a scheduler, a service manager, ``kill``."""


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Within this context SIGTERM raises `Terminated`, once; further ones are ignored.

    Without effect outside of the main thread, and where the caller handles the signal himself.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    if not on_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
