"""Time training steps as this package takes them and as PyTorch does, alone and on a busy machine.

Run ``python tests/benchmarks/busy.py``. A step is forward, backward, SGD and zero_grad of a
supernet on the path of the step, in channels_last, on a batch that lies ready. How threads wait is
settled when PyTorch is loaded, so that each contender is a process of its own:

- ours: threads that wait soon sleep, and a small network has one thread;
- spinning: as PyTorch and OpenMP do it without a word, by importing PyTorch before this package;
- one thread: nobody waits.

All are timed alone, and then beside processes that do nothing but keep a core busy, one for each
core. Rounds interleave the contenders in turning order, and medians of the ratios within a round
are compared, because other work on the machine comes and goes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rounds import time_in_turns

OURS, SPINNING, ONE_THREAD = "ours", "spinning", "one thread"
LEAST_SPEED = 0.98
"""Of ours alone, over that of spinning."""
MOST_TIME = 2.5
"""Of ours beside busy processes, over that of one thread beside them."""

BUSY = "while True: pass"


class Contender:
    """A process that trains for some steps whenever it is asked to.

    Parameters
    ----------
    name
        How its threads wait.
    options
        Of the command line.
    """

    def __init__(self, name: str, options: argparse.Namespace):
        command = [sys.executable, "-W", "ignore", __file__, "--serve", name]
        for key in ("space", "image_size", "batch_size", "steps"):
            command += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
        self._process = subprocess.Popen(
            command,
            env=_environment(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def train(self, number: int) -> None:
        """Let it train on the paths from a number on, and wait."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(number, file=self._process.stdin, flush=True)
        if not self._process.stdout.readline():
            raise SystemExit("a process that was to be timed has ended.")

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


def _environment(name: str) -> dict[str, str]:
    from nni_spos.process.openmp import VARIABLES

    unset = (*VARIABLES, "OMP_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    return {**environment, **({"OMP_NUM_THREADS": "1"} if name == ONE_THREAD else {})}


def serve(name: str, options: argparse.Namespace) -> None:
    """Train from the path of each number that comes, and answer with a line."""
    if name == SPINNING:
        import torch  # noqa: F401

    from freed_memory import training

    import nni_spos  # noqa: F401  sets how threads wait, if it is the first

    step = training(options)
    with contextlib.ExitStack() as stack:
        if name == OURS:
            stack.enter_context(_our_threads(options))
        for line in sys.stdin:
            for number in range(options.steps):
                step(int(line) * options.steps + number)
            print("done", flush=True)


def _our_threads(options: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
    from nni_spos.profilers import build_costs
    from nni_spos.spaces import Form, build_space
    from nni_spos.training import threads_for

    size = options.image_size
    shape = {"num_classes": 10, "in_channels": 3, "input_size": size}
    space = build_space(options.space, {}, Form.SUBNET, **shape)
    multiply_adds, _ = build_costs(space, (3, size, size))["flops"].dearest()
    return threads_for(multiply_adds, options.batch_size)


@contextlib.contextmanager
def _contenders(options: argparse.Namespace) -> Iterator[dict[str, Contender]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for name in (OURS, SPINNING, ONE_THREAD):
            found[name] = Contender(name, options)
            stack.callback(found[name].end)
        yield found


@contextlib.contextmanager
def _busy(number: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            process = subprocess.Popen([sys.executable, "-c", BUSY])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return medians of seconds a step and of the ratios, alone and beside busy processes."""
    with _contenders(options) as found:

        def time() -> dict[str, list[float]]:
            steps = {name: contender.train for name, contender in found.items()}
            return time_in_turns(steps, options.paths, options.repeats, lambda: None, _progress)

        alone = time()
        with _busy(options.busy):
            beside = time()
    speed = _quartiles(alone, SPINNING, OURS)
    ratio = _quartiles(beside, OURS, ONE_THREAD)
    return {
        "settings": {key: value for key, value in vars(options).items() if key != "serve"},
        "seconds": {"alone": _medians(alone, options), "beside": _medians(beside, options)},
        "speed_alone": {**speed, "met": speed["median"] >= LEAST_SPEED},
        "times_one_thread_beside": {**ratio, "met": ratio["median"] <= MOST_TIME},
    }


def _medians(seconds: dict[str, list[float]], options: argparse.Namespace) -> dict[str, float]:
    return {name: float(np.median(times)) / options.steps for name, times in seconds.items()}


def _quartiles(seconds: dict[str, list[float]], over: str, under: str) -> dict[str, float]:
    ratios = np.array(seconds[over]) / np.array(seconds[under])
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {"quartile_1": float(low), "median": float(median), "quartile_3": float(high)}


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="shufflenet_small")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--paths", type=int, default=2, help="times that all train untimed first")
    parser.add_argument("--steps", type=int, default=3, help="training steps that are timed as one")
    parser.add_argument("--repeats", type=int, default=12, help="timed rounds")
    parser.add_argument(
        "--busy", type=int, default=os.cpu_count() or 1, help="processes; by default one a core"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    numbers = (
        options.image_size,
        options.batch_size,
        options.paths,
        options.steps,
        options.repeats,
    )
    if min(numbers) < 1 or options.busy < 0:
        parser.error("numbers must be at least 1.")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    options = _options(arguments)
    if options.serve:
        serve(options.serve, options)
        return
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in found["settings"].items()))
    print(f"{'seconds per step':<14}{'alone':>12}{'beside busy processes':>24}")
    for name, alone in found["seconds"]["alone"].items():
        print(f"{name:<14}{alone:>14.3f}{found['seconds']['beside'][name]:>24.3f}")
    for title, key, bound in (
        ("alone, speed of ours over spinning", "speed_alone", f">= {LEAST_SPEED}"),
        ("busy, time of ours over one thread", "times_one_thread_beside", f"<= {MOST_TIME}"),
    ):
        low, median, high, met = found[key].values()
        verdict = "met" if met else "NOT MET"
        print(f"{title} {bound}: {median:.3f} (quartiles {low:.3f} and {high:.3f})  {verdict}")


if __name__ == "__main__":
    main()
