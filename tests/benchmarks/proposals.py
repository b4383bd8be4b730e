"""Measure what a candidate of the search that learns costs, by the number of results so far.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/proposals.py``. The space has 20 units of 4 choices,
the limit on FLOPs is one that about half of all paths keep, and the score is a sum over the
choices. Times are those of the processor for asking and telling, for each candidate: the mean of
the generations that begin within the last tenth of what was told.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np
from simulated import make_costs, make_space, median_limit

from nni_spos.constraint import Constraint
from nni_spos.evolution import BayesianSearch
from nni_spos.path import PathSpace

UNITS, CHOICES = 20, 4
TOLD = (100, 200, 500, 1000, 2000, 5000)
PART = 0.1
"""Of the results so far: over so many times are averaged."""


class Accuracy:
    """A made-up accuracy in percent: a sum over choices, and noise that a path always has."""

    def __init__(self, space: PathSpace):
        self._space = space
        self._parts = np.random.default_rng(1).normal(0, 0.5, (UNITS, CHOICES))

    def __call__(self, path: dict[str, object]) -> float:
        key = self._space.key(path)
        noise = np.random.default_rng(key).normal(0, 0.2)
        return 80 + float(self._parts[np.arange(UNITS), list(key)].sum() + noise)


def measure(population: int, most: int) -> dict[int, float]:
    """Return milliseconds for each candidate by the number of results before it."""
    space = make_space(UNITS, CHOICES)
    costs, score = make_costs(space), Accuracy(space)
    search = BayesianSearch(
        space,
        costs,
        constraints=[Constraint.parse(median_limit(costs))],
        population_size=population,
        num_generations=most // population + 2,
        seed=0,
    )
    laps: list[tuple[int, float]] = []
    told = 0
    while told < most + population:
        begin = time.process_time()
        paths = [search.ask() for _ in range(population)]
        asked = time.process_time() - begin
        metrics = [{"top1": score(path)} for path in paths]
        begin = time.process_time()
        for path, found in zip(paths, metrics, strict=True):
            search.tell(path, found)
        laps.append((told, (asked + time.process_time() - begin) / population))
        told += population
        if told % 500 < population:
            print(f"population {population}: {told} results", file=sys.stderr, flush=True)
    return {
        number: 1e3 * float(np.mean([s for n, s in laps if number * (1 - PART) <= n <= number]))
        for number in TOLD
        if number <= most
    }


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--populations", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--told", type=int, default=TOLD[-1], help="results, at most")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    found = {population: measure(population, options.told) for population in options.populations}
    if options.json:
        print(json.dumps(found))
        return
    numbers = [x for x in TOLD if x <= options.told]
    print(f"| milliseconds after | {' | '.join(f'{x:,}' for x in numbers)} |")
    print("|---" * (len(numbers) + 1) + "|")
    for population, times in found.items():
        cells = " | ".join(f"{times[x]:.1f}" for x in numbers)
        print(f"| `population_size: {population}` | {cells} |")


if __name__ == "__main__":
    main()
