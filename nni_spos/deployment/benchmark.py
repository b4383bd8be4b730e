"""How fast an exported network is, how large, and how much memory it takes.

Each network runs in a process of its own. Where one is compared with another, they take turns, so
that a machine that gets slower or faster does so for both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from nni_spos.deployment.runner import NETWORK
from nni_spos.errors import ExportError, SposError, error_from_data
from nni_spos.export.runtimes import FILES, find_runtime
from nni_spos.files.atomic import read_json, write_json
from nni_spos.latency.table import this_machine
from nni_spos.process.child import python_command
from nni_spos.recipe.output import exported_speed

ROUND = 10
"""Runs of a network in a row."""


@dataclass(frozen=True)
class Speed:
    """What a network takes in a runtime.

    Parameters
    ----------
    name
        Folder or file of the network.
    runtime, threads, batch
        How it ran; `threads` of one operator.
    p50_ms, p90_ms
        Of the times of one batch.
    images_per_second
        At the median.
    num_bytes
        Of the file.
    peak_memory_bytes
        Of the process; None where the system does not say.
    network_memory_bytes
        Of these what the network takes beyond the runtime without one.
    machine, date
        Where and when it was measured.
    """

    name: str
    runtime: str
    threads: int
    batch: int
    p50_ms: float
    p90_ms: float
    images_per_second: float
    num_bytes: int
    peak_memory_bytes: int | None
    network_memory_bytes: int | None
    machine: str
    date: str

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class TimedNetwork:
    """A network that is to run.

    Parameters
    ----------
    place
        As somebody named it.
    file
        What the runtime opens.
    runtime
        Its name.
    shape
        Of one image.
    input
        Type of its values.
    batch
        Images at a time that the file is made for; None: any number.
    """

    place: FilePath
    file: FilePath
    runtime: str
    shape: tuple[int, ...]
    input: str
    batch: int | None


def benchmark(
    places: Sequence[str | os.PathLike[str]],
    *,
    runtime: str | None = None,
    threads: int = 1,
    batch: int = 1,
    runs: int = 200,
) -> list[Speed]:
    """Measure networks, each in a process of its own, in turns.

    Parameters
    ----------
    places
        Folders that ``nni-spos export`` wrote, or files of trained networks (``.pt``).
    runtime
        ``onnxruntime``, ``torch`` or ``openvino``; by default that of each network's format.
    threads
        Of the runtime for one operator.
    batch
        Images at a time.
    runs
        Timed runs of each network.

    Returns
    -------
    What each takes. That of a folder is kept in its ``benchmark.json`` too.

    Raises
    ------
    ExportError
        There is no such network, runtime or package, or a number is below 1.
    """
    for name, number in (("--threads", threads), ("--batch", batch), ("--runs", runs)):
        if number < 1:
            raise ExportError(f"{name}: must be at least 1, got {number}.")
    candidates = [_find(FilePath(place), runtime, batch) for place in places]
    with contextlib.ExitStack() as stack:
        runners = [stack.enter_context(_running(x, threads, batch)) for x in candidates]
        times: list[list[float]] = [[] for _ in runners]
        for start in range(0, runs, ROUND):
            for found, runner in zip(times, runners, strict=True):
                found += runner.run(min(ROUND, runs - start))
        peaks = [runner.finish() for runner in runners]
    speeds = [
        _speed(candidate, found, runner.memory_bytes, peak, threads, batch)
        for candidate, found, runner, peak in zip(candidates, times, runners, peaks, strict=True)
    ]
    for candidate, speed in zip(candidates, speeds, strict=True):
        if candidate.place.is_dir():
            _keep(candidate.place, speed)
    return speeds


def read_speeds(folder: FilePath) -> list[dict[str, Any]]:
    """Return what was measured of an exported folder; nothing if that is missing or damaged."""
    with contextlib.suppress(SposError):
        content = read_json(exported_speed(folder), ExportError)
        if isinstance(content, list) and all(isinstance(x, dict) for x in content):
            return content
    return []


def _keep(folder: FilePath, speed: Speed) -> None:
    keys = ("runtime", "threads", "batch", "machine")
    new = speed.to_json()
    others = [x for x in read_speeds(folder) if any(x.get(k) != new[k] for k in keys)]
    with contextlib.suppress(OSError):  # a folder that can only be read
        write_json(exported_speed(folder), [*others, {k: v for k, v in new.items() if k != "name"}])


def _find(place: FilePath, runtime: str | None, batch: int) -> TimedNetwork:
    """Return what is to run of a folder or a file. Raises ExportError."""
    if runtime is not None:
        find_runtime(runtime)
    if not place.exists():
        raise ExportError(f"{place}: no such file or folder.")
    if not place.is_dir():
        return _find_network(place, runtime)
    known = [name for name, file in FILES.items() if (place / file).is_file()]
    if not known:
        raise ExportError(
            f"{place}: has no {' or '.join(dict.fromkeys(FILES.values()))}. 'nni-spos export' "
            "writes such a folder."
        )
    chosen = runtime or known[0]
    if chosen not in known:
        raise ExportError(
            f"{place}: has no {FILES[chosen]}, which {chosen} runs. Use {' or '.join(known)}."
        )
    settings = read_json(place / "preprocessing.json", ExportError)
    written = read_json(place / "export.json", ExportError)
    try:
        shape = (settings["channels"], *settings["image_size"])
        fixed, kind = written["batch"], str(settings["input"])
    except (KeyError, TypeError) as problem:
        raise ExportError(f"{place}: is damaged ({problem!r:.100}). Export it anew.") from None
    if fixed not in (None, batch):
        raise ExportError(f"{place}: takes {fixed} images at a time. Give --batch {fixed}.")
    return TimedNetwork(place, place / FILES[chosen], chosen, shape, kind, fixed)


def _find_network(file: FilePath, runtime: str | None) -> TimedNetwork:
    if file.suffix != NETWORK:
        raise ExportError(f"{file}: is neither an exported folder nor a trained network (.pt).")
    if runtime not in (None, "torch"):
        raise ExportError(
            f"{file}: runs in torch. For {runtime} export it first: nni-spos export {file}"
        )
    from nni_spos.export.images import InputImages
    from nni_spos.retraining.network import load_network

    shape = InputImages.read(load_network(file).preprocessing).shape
    return TimedNetwork(file, file, "torch", shape, "float32", None)


class _Runner:
    """A process that runs a network.

    Parameters
    ----------
    process
        Of `nni_spos.deployment.runner`.
    """

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self.memory_bytes: int | None = self._read()["memory_bytes"]

    def run(self, number: int) -> list[float]:
        """Return the milliseconds of so many runs."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, which is explained
            self._process.stdin.write(f"{number}\n")
            self._process.stdin.flush()
        return self._read()

    def finish(self) -> int | None:
        """Return the peak memory of the process, which ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._read()["peak_bytes"]

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ExportError(
                f"the process of the network ended with exit code {self._process.wait()}: was it "
                "killed for its memory?"
            )
        content = json.loads(line)
        if isinstance(content, dict) and "error" in content:
            raise error_from_data(content)
        return content


@contextlib.contextmanager
def _running(candidate: TimedNetwork, threads: int, batch: int) -> Iterator[_Runner]:
    settings = {
        "file": str(candidate.file.absolute()),
        "runtime": candidate.runtime,
        "threads": threads,
        "shape": [batch, *candidate.shape],
        "input": candidate.input,
    }
    process = subprocess.Popen(
        python_command("nni_spos.deployment.runner", [json.dumps(settings)]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    try:
        yield _Runner(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _speed(
    candidate: TimedNetwork,
    times: Sequence[float],
    before: int | None,
    peak: int | None,
    threads: int,
    batch: int,
) -> Speed:
    p50, p90 = np.percentile(times, [50, 90]).tolist()
    return Speed(
        name=str(candidate.place),
        runtime=candidate.runtime,
        threads=threads,
        batch=batch,
        p50_ms=p50,
        p90_ms=p90,
        images_per_second=1e3 * batch / p50,
        num_bytes=candidate.file.stat().st_size,
        peak_memory_bytes=peak,
        network_memory_bytes=None if peak is None or before is None else peak - before,
        machine=this_machine("cpu") or "unknown",
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def speed_rows(speeds: Sequence[Speed | Mapping[str, Any]]) -> list[list[str]]:
    """Return rows for people: name, runtime, p50, p90, images per second, bytes and memory."""
    from nni_spos.display.numbers import format_memory

    rows = []
    for speed in speeds:
        found = speed.to_json() if isinstance(speed, Speed) else speed
        rows.append(
            [
                str(found.get("name", "")),
                str(found["runtime"]),
                f"{found['p50_ms']:.3f}",
                f"{found['p90_ms']:.3f}",
                f"{found['images_per_second']:.0f}",
                f"{found['num_bytes']:,}",
                format_memory(found["peak_memory_bytes"]),
                format_memory(found["network_memory_bytes"]),
            ]
        )
    return rows


SPEED_HEADER = (
    "network",
    "runtime",
    "p50 (ms)",
    "p90 (ms)",
    "images/s",
    "bytes",
    "peak memory",
    "of the network",
)
