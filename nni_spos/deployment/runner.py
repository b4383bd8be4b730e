"""The process that runs a network for a benchmark: ``runner SETTINGS``, a JSON object.

Nothing but the runtime and the network is in it, so that its memory is theirs. It reads a number of
runs a line from standard input, and writes the milliseconds of each run as a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from nni_spos.errors import SposError, error_as_data
from nni_spos.export.base import Run
from nni_spos.export.runtimes import as_run, find_runtime

KIBIBYTE = 1024
NETWORK = ".pt"
"""Suffix of files that ``nni-spos retrain`` writes."""


def main(settings: dict[str, Any]) -> None:
    """Run the network as often as standard input says."""
    try:
        _import(settings["runtime"])
        before = memory("VmRSS")
        run = _open(settings)
        images = _images(settings)
        run(images)
    except SposError as problem:
        _say(error_as_data(problem))
        return
    except Exception as problem:  # of the runtime, or of a user's network
        _say({"error": "ExportError", "text": f"{settings['file']}: {problem}"})
        return
    _say({"memory_bytes": before})
    for line in sys.stdin:
        _say(_timed(run, images, int(line)))
    _say({"peak_bytes": memory("VmHWM")})


def _import(runtime: str) -> None:
    """Import the runtime, which is no part of what the network takes."""
    if runtime == "torch":
        import torch  # noqa: F401
    elif runtime == "onnxruntime":
        import onnxruntime  # noqa: F401
    elif runtime == "openvino":
        import openvino  # noqa: F401


def _open(settings: dict[str, Any]) -> Run:
    file, threads = FilePath(settings["file"]), settings["threads"]
    if file.suffix == NETWORK:
        from nni_spos.retraining.network import load_network

        return as_run(load_network(file).network, threads)
    return find_runtime(settings["runtime"])(file, threads)


def _images(settings: dict[str, Any]) -> Any:
    generator = np.random.default_rng(0)
    shape = tuple(settings["shape"])
    if settings["input"] == "float32":
        return generator.standard_normal(shape, dtype=np.float32)
    largest = np.iinfo(settings["input"]).max
    return generator.integers(0, largest, shape, dtype=settings["input"], endpoint=True)


def _timed(run: Run, images: Any, number: int) -> list[float]:
    run(images)  # whoever ran meanwhile has taken the caches
    times = []
    for _ in range(number):
        start = time.perf_counter()
        run(images)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def memory(name: str) -> int | None:
    """Return what Linux says of this process, in bytes; None on other systems."""
    try:
        text = FilePath("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    line = next((x for x in text.splitlines() if x.startswith(f"{name}:")), None)
    return None if line is None else int(line.split()[1]) * KIBIBYTE


def _say(content: Any) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
