"""Clocks of the devices that networks run on."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch


class Stopwatch(Protocol):
    """Takes readings along the work of a device."""

    def read(self) -> Any:
        """Return a reading that is taken when the device gets here."""

    def finish(self) -> None:
        """Wait until the device has taken every reading."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Return the time between two readings; only after `finish`."""


class CpuStopwatch:
    """The processor's clock."""

    def read(self) -> float:
        return time.perf_counter()

    def finish(self) -> None:
        pass

    def milliseconds(self, start: float, end: float) -> float:
        return (end - start) * 1e3


class CudaStopwatch:
    """Events in the GPU's queue, which do not make the processor wait between layers."""

    def read(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def finish(self) -> None:
        torch.cuda.synchronize()

    def milliseconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return start.elapsed_time(end)
