"""Time contenders in rounds that interleave them, for other work on the machine comes and goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def time_in_turns(
    steps: Mapping[str, Callable[[int], object]],
    num_paths: int,
    repeats: int,
    wait: Callable[[], object],
    report: Callable[[str], object],
) -> dict[str, list[float]]:
    """Return the seconds of each contender's step in each round.

    Parameters
    ----------
    steps
        By name, one step on the path of a number; each path is gone through once before.
    num_paths
        Of these numbers.
    repeats
        Rounds.
    wait
        Called before and after each step, until the device or the other processes are there too.
    report
        Takes a line of progress.
    """
    for number in range(num_paths):
        for step in steps.values():
            step(number)
        report(f"warm-up {number + 1}/{num_paths}")
    names = list(steps)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wait()
            start = time.perf_counter()
            steps[name](number % num_paths)
            wait()
            seconds[name].append(time.perf_counter() - start)
        times = "  ".join(f"{name} {seconds[name][-1]:.3f} s" for name in names)
        report(f"round {number + 1}/{repeats}  {times}")
    return seconds
