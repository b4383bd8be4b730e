"""What a stage cost: time and the highest memory it needed, as in Table 7 of the paper."""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni_spos.values import is_finite

KIBIBYTE = 1024


@dataclass(frozen=True)
class StageCost:
    """Time and memory of a stage, or of a part of it.

    Parameters
    ----------
    seconds
        Wall-clock time.
    peak_memory_bytes
        On a GPU the most that PyTorch's tensors took at a time, else the largest resident size of
        the process since its start; None where it is not known.
    device
        ``cpu``, or the name of the GPU; ``""`` where it is not known.

    Examples
    --------
    >>> StageCost(2.0, 300, "cpu") + StageCost(1.5, 500, "cpu")
    StageCost(seconds=3.5, peak_memory_bytes=500, device='cpu')
    """

    seconds: float
    peak_memory_bytes: int | None
    device: str

    def __add__(self, later: StageCost) -> StageCost:
        peaks = [x.peak_memory_bytes for x in (self, later) if x.peak_memory_bytes is not None]
        return StageCost(
            self.seconds + later.seconds, max(peaks, default=None), later.device or self.device
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `read_stage_cost` reads."""
        return dataclasses.asdict(self)


def read_stage_cost(content: Any) -> StageCost | None:
    """Read what `StageCost.to_json` wrote; None if it is not there or damaged.

    A cost is for people: a file without one, written before there were any, is as good.
    """
    if not isinstance(content, Mapping):
        return None
    seconds: Any = content.get("seconds")
    peak: Any = content.get("peak_memory_bytes")
    if not _is_amount(seconds) or not (peak is None or _is_amount(peak)):
        return None
    return StageCost(
        float(seconds), None if peak is None else int(peak), str(content.get("device", ""))
    )


def measure_since(begin: float) -> StageCost:
    """Return the cost of what this process did since a moment of `time.monotonic`."""
    return StageCost(time.monotonic() - begin, *_peak_memory())


def measure_memory() -> dict[str, Any]:
    """Return the highest memory that this process needed, as JSON; see `StageCost`.

    The keys are ``peak_memory_bytes`` and ``device``.
    """
    peak, device = _peak_memory()
    return {"peak_memory_bytes": peak, "device": device}


def add_memory(seconds: float, memory: Any) -> StageCost:
    """Return the cost of what took `seconds` here and, elsewhere, the memory of `measure_memory`.

    Memory that is not there, or damaged, is not known.
    """
    content = memory if isinstance(memory, Mapping) else {}
    return read_stage_cost({**content, "seconds": seconds}) or StageCost(seconds, None, "")


def reset_peak_memory() -> None:
    """Forget what tensors took on the GPU before; a process's resident size cannot be reset."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> tuple[int | None, str]:
    torch = sys.modules.get("torch")  # what has not imported it, has nothing on a GPU
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
    try:
        import resource
    except ImportError:  # Windows
        return None, "cpu"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * KIBIBYTE, "cpu"


def _is_amount(value: Any) -> bool:
    return is_finite(value) and value >= 0
