"""Names of costs and results for people."""

from __future__ import annotations

import re

UNITS = {
    "flops": "multiply-adds",
    "params": "parameters",
    "bitops": "BitOps",
    "size_bytes": "weights (bytes)",
}
RESULT_UNITS = {
    "top1": "top-1 accuracy (%)",
    "top5": "top-5 accuracy (%)",
    "log_likelihood": "log-likelihood",
}


def metric_title(metric: str) -> str:
    """Return what an axis or a column of a cost is called.

    >>> metric_title("flops"), metric_title("latency_ms(cpu)")
    ('multiply-adds', 'latency on cpu (ms)')
    """
    match = re.fullmatch(r"latency_ms\((.*)\)", metric)
    return f"latency on {match[1]} (ms)" if match else UNITS.get(metric, metric)


def result_title(name: str) -> str:
    """Return what an axis or a column of a result is called."""
    return RESULT_UNITS.get(name, name)


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many characters.

    >>> shorten("a_very_long_name", 8)
    'a_very_…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"
