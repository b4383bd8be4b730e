"""Measure how time, memory and state grow with candidates, trials, units, choices and population.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/growth.py``. The experiment is simulated: the real
tuner with its state on the disk, but trials that end at once. Times of an ask and of a tell are
those of the tuner's callbacks; a tell includes proposing the next generation and waiting for the
disk. Processor times are steadier on a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import psutil
from simulated import (
    SimulatedManager,
    Simulation,
    journal_of,
    make_costs,
    make_space,
    median_limit,
    score,
    started_tuner,
    write_experiment,
)

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable
from nni_spos.counting import PathCounter
from nni_spos.evolution import EvolutionSearch, Signal, read_journal
from nni_spos.path import PathSpace
from nni_spos.priors import ConstrainedPrior
from nni_spos.search.results import load_results

UNITS, CHOICES, POPULATION = 20, 4, 50
"""The paper's: what stays as it is while another number grows."""
GROWING = {"units": (10, 20, 40, 80), "choices": (2, 4, 8, 16), "population": (50, 500, 5000)}
PARTS = 10
GENERATIONS = 4
FAILURES = frozenset({"silent", "not a number"})


def measure_run(num_candidates: int, algorithm: str, parent: FilePath) -> dict[str, Any]:
    """Return what each tenth of an experiment takes, its memory and state, and reading it again."""
    space, manager = make_space(UNITS, CHOICES), SimulatedManager(make_space(UNITS, CHOICES))
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = FilePath(name)
        write_experiment(
            folder,
            space,
            algorithm=algorithm,
            population_size=POPULATION,
            num_generations=num_candidates // POPULATION,
        )
        memory = _memory()
        parts = []
        with started_tuner(folder, space, manager) as tuner:
            simulation = Simulation(tuner, manager, concurrency=1)
            for part in range(PARTS):
                before = simulation.total
                simulation.end_trials(num_candidates // PARTS)
                lap = simulation.total - before
                parts.append(
                    {
                        "ask_us": 1e6 * lap.ask_seconds / lap.num_candidates,
                        "tell_us": 1e6 * lap.tell_seconds / lap.num_candidates,
                        "cpu_us": 1e6 * lap.cpu_seconds / lap.num_candidates,
                        "memory_mb": (_memory() - memory) / 1e6,
                        "state_mb": journal_of(folder).stat().st_size / 1e6,
                    }
                )
                _progress(f"{algorithm}: part {part + 1}/{PARTS}")
            simulation.end_trials()
        del tuner, simulation
        resume_seconds = _timed(lambda: _resume(folder, space))
        results_seconds = _timed(lambda: load_results(folder).format_table())
        return {
            "parts": parts,
            "resume_seconds": resume_seconds,
            "results_seconds": results_seconds,
            "candidates": len(load_results(folder).candidates),
        }


def _resume(folder: FilePath, space: PathSpace) -> None:
    manager = SimulatedManager(space)
    with started_tuner(folder, space, manager) as tuner:
        # Nothing is left: the tuner says so instead of giving a path.
        assert Simulation(tuner, manager, concurrency=1).end_trials() == 0


def measure_concurrent(num_trials: int, num_generations: int, parent: FilePath) -> dict[str, Any]:
    """Return whether trials side by side, in random order, find what they do one by one."""
    space = make_space(UNITS, CHOICES)
    found, most, seconds = [], [], []
    for concurrency in (1, num_trials):
        with tempfile.TemporaryDirectory(dir=parent) as name:
            folder, manager = FilePath(name), SimulatedManager(space)
            write_experiment(
                folder, space, population_size=num_trials, num_generations=num_generations
            )
            with started_tuner(folder, space, manager) as tuner:
                simulation = Simulation(tuner, manager, concurrency, FAILURES)
                simulation.end_trials()
            total = simulation.total
            most.append(simulation.most_running)
            seconds.append(total.cpu_seconds / total.num_candidates)
            found.append(read_journal(journal_of(folder))[1])
        _progress(f"{concurrency} at a time")
    return {
        "trials_at_a_time": most,
        "candidates": len(found[0]),
        "failed": sum(bool(candidate.reason) for candidate in found[0]),
        "same_candidates_and_results": found[0] == found[1],
        "cpu_us": [1e6 * value for value in seconds],
    }


def measure_growth() -> dict[str, dict[str, dict[str, float]]]:
    """Return times in microseconds against units, choices and population."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for what, sizes in GROWING.items():
        table[what] = {}
        for size in sizes:
            numbers = {"units": UNITS, "choices": CHOICES, "population": POPULATION, what: size}
            space = make_space(numbers["units"], numbers["choices"])
            table[what][str(size)] = _measure_size(space, numbers["population"])
            _progress(f"{size} {what}")
    return table


def _measure_size(space: PathSpace, population_size: int) -> dict[str, float]:
    costs = make_costs(space)
    limit = Constraint.parse(median_limit(costs))
    table = costs["flops"]
    paths = space.decode(np.zeros((1000, len(space)), dtype=int))
    made: list[ConstrainedPrior] = []
    counted = _timed(lambda: PathCounter([table]).within(limit).count())
    prior = _timed(lambda: made.append(ConstrainedPrior(space, table, [limit])))
    steps = 2 * ConstrainedPrior.BLOCK_SIZE
    return {
        **_measure_search(space, costs, limit, population_size),
        "counting_ms": 1e3 * counted,
        "prior_set_up_ms": 1e3 * prior,
        "path_of_a_step_us": 1e6 * _timed(lambda: [made[0].path(i) for i in range(steps)]) / steps,
        "price_us": 1e6 * _timed(lambda: [table.price(path) for path in paths]) / len(paths),
    }


def _measure_search(
    space: PathSpace, costs: dict[str, CostTable], limit: Constraint, population_size: int
) -> dict[str, float]:
    search = EvolutionSearch(
        space,
        costs,
        constraints=[limit],
        population_size=population_size,
        num_generations=GENERATIONS,
    )
    ask, tell = 0.0, 0.0
    while True:
        begin = time.process_time()
        paths = list(itertools.takewhile(lambda x: not isinstance(x, Signal), iter(search.ask, 0)))
        middle = time.process_time()
        for path in paths:
            search.tell(path, {"top1": score(path)})
        ask, tell = ask + middle - begin, tell + time.process_time() - middle
        if not paths:
            count = len(search.candidates)
            return {"ask_us": 1e6 * ask / count, "tell_us": 1e6 * tell / count}


def _memory() -> int:
    return psutil.Process().memory_info().rss


def _timed(work: Callable[[], object]) -> float:
    """Return the processor time of all threads, in seconds."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_run(algorithm: str, run: dict[str, Any]) -> None:
    parts = run["parts"]
    print(f"{algorithm}, {run['candidates']} candidates; microseconds a candidate, MB in all")
    print(f"{'tenth':>6}" + "".join(f"{name:>12}" for name in parts[0]))
    for number, part in enumerate(parts, start=1):
        print(f"{number:>6}" + "".join(f"{value:>12.1f}" for value in part.values()))
    ratio = parts[-1]["cpu_us"] / parts[0]["cpu_us"]
    print(f"last tenth / first tenth: {ratio:.2f}")
    print(f"resume {run['resume_seconds']:.1f} s, results {run['results_seconds']:.1f} s\n")


def _print_growth(table: dict[str, dict[str, dict[str, float]]]) -> None:
    for what, rows in table.items():
        names = next(iter(rows.values()))
        print(f"{what:>12}" + "".join(f"{name:>19}" for name in names))
        for size, row in rows.items():
            print(f"{size:>12}" + "".join(f"{value:>19.1f}" for value in row.values()))
        print()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--candidates", type=int, default=100_000, help="of the long experiment")
    parser.add_argument("--trials", type=int, default=1000, help="that run at a time")
    parser.add_argument("--folder", type=FilePath, help="where states are, else a temporary one")
    parser.add_argument(
        "--algorithms", nargs="+", default=["evolution", "nsga2"], help="of the long experiment"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    if options.candidates < 10 * POPULATION or options.trials < 2:
        parser.error(f"at least {10 * POPULATION} candidates and 2 trials at a time.")
    logging.getLogger("nni_spos").setLevel(logging.ERROR)  # the planned failures
    runs = {x: measure_run(options.candidates, x, options.folder) for x in options.algorithms}
    concurrent = measure_concurrent(options.trials, 3, options.folder)
    growth = measure_growth()
    if options.json:
        content = {"runs": runs, "concurrent": concurrent, "growth": growth}
        print(json.dumps(content, indent=2))
        return
    for algorithm, run in runs.items():
        _print_run(algorithm, run)
    print(concurrent, end="\n\n")
    _print_growth(growth)


if __name__ == "__main__":
    main()
