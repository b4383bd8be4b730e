"""How well a model of a few trained paths ranks all others, by the number of these.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/landmarks.py``. Paths are trained in a published
table: the model learns from one training of each of N paths, chosen by `choose_landmarks`
(D-optimal) or at random, and predicts all others. Kendall's tau is to the mean of all three
trainings. Beside it stands what multiply-adds, parameters, and the number of units that do not make
their cheapest choice rank, which cost nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from published_tables import TABLES
from scipy.stats import kendalltau

from nni_spos.evolution.feasible import FeasibleSampler
from nni_spos.evolution.landmarks import POOL, draw_pool
from nni_spos.prediction import PathInputs, PathModel, d_optimal

NUMBERS = (16, 24, 32, 48, 64)


def tau(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return Kendall's tau-b."""
    return float(kendalltau(scores, truth, method="asymptotic").statistic)


def measure(name: str, numbers: Sequence[int], draws: int) -> dict[str, Any]:
    """Return the taus of a table, by design and number."""
    from nasbench_macro import TABLE

    _, load = TABLES[name]
    table = load()
    space, paths = table.space, table.space.enumerate()
    truth = np.array(list(table.accuracies.values()))
    trainings = load_trainings(name, TABLE)
    sizes = PathInputs(space, table.costs).sizes(paths)
    found: dict[str, Any] = {
        "trivial": {
            "flops": tau(table.costs["flops"].price_many(paths), truth),
            "params": tau(table.costs["params"].price_many(paths), truth),
            "units": tau((sizes > 0).sum(axis=1), truth),
        },
        "one training": tau(trainings[:, 0], trainings[:, 1:].mean(axis=1)),
    }
    sampler = FeasibleSampler(space, table.costs)
    for design in ("D-optimal", "random"):
        for number in numbers:
            begin, taus = time.process_time(), []
            for seed in range(draws):
                generator = np.random.default_rng(seed)
                pool = draw_pool(sampler, POOL, generator)
                rows = pool[:number]
                if design == "D-optimal":
                    rows = pool[list(itertools.islice(d_optimal(pool, space.num_choices), number))]
                at = np.ravel_multi_index(rows.T, space.num_choices)
                results = trainings[at, generator.integers(trainings.shape[1], size=len(at))]
                model = PathModel(space, table.costs).fit(rows, results)
                others = np.setdiff1d(np.arange(len(paths)), at)
                taus.append(tau(model.predict(paths[others])[0], truth[others]))
            found.setdefault(design, {})[number] = taus
            seconds = time.process_time() - begin
            mean = float(np.mean(taus))
            print(f"{name}: {design} {number}: {mean:.4f}, {seconds:.0f} s", file=sys.stderr)
    return found


def load_trainings(name: str, macro: Any) -> np.ndarray:
    """Return the accuracies of all trainings, shape (num_paths, 3)."""
    from published_tables import CHANNEL_TABLE

    from nni_spos.spaces import load_channel_bench_macro, load_nas_bench_macro

    if name == "NAS-Bench-Macro":
        return load_nas_bench_macro(macro).accuracies
    return load_channel_bench_macro(CHANNEL_TABLE, name.rpartition(" ")[2]).accuracies


def describe(found: dict[str, Any]) -> str:
    """Return a Markdown table of mean taus, with the standard deviation of a draw."""
    lines = []
    for name, content in found.items():
        numbers = list(content["D-optimal"])
        lines += [f"### {name}", "", f"| landmarks | {' | '.join(map(str, numbers))} |"]
        lines.append("|---" * (len(numbers) + 1) + "|")
        for design in ("D-optimal", "random"):
            cells = [
                f"{np.mean(content[design][n]):.3f} +- {np.std(content[design][n]):.3f}"
                for n in numbers
            ]
            lines.append(f"| {design} | {' | '.join(cells)} |")
        trivial = ", ".join(f"{k} {v:.3f}" for k, v in content["trivial"].items())
        lines += ["", f"Trivial: {trivial}; one training: {content['one training']:.3f}.", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=50, help="of landmarks, for each number")
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="of landmarks")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args(arguments)
    if options.draws < 1 or min(options.numbers) < 2:
        parser.error("at least 1 draw, of 2 landmarks or more.")
    found = {name: measure(name, options.numbers, options.draws) for name in options.tables}
    print(json.dumps(found, indent=2) if options.json else describe(found))


if __name__ == "__main__":
    main()
