"""Whether a supernet's scores help a model of a few trained paths to rank the others.

Run ``nni-spos correlate RECIPE --table TABLE --paths 1000 --json study.json`` with a supernet of
the space ``nasbench_macro``, then ``OMP_NUM_THREADS=1 python
tests/benchmarks/landmarks_with_scores.py study.json``. For each number N and each draw, N landmarks
are chosen among half of the study's paths, as `choose_landmarks` does. The model learns from one
published training of each, once without and once with each kind of score as a further input, and
ranks the study's other paths. Kendall's tau is to the mean of all three trainings.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from landmarks import tau
from nasbench_macro import TABLE, load_macro

from nni_spos.prediction import PathModel, d_optimal
from nni_spos.ranking.correlating import TRIVIAL
from nni_spos.spaces import load_nas_bench_macro

NUMBERS = (16, 24, 48)
WITHOUT = "none"


def measure(study: dict[str, Any], numbers: Sequence[int], draws: int) -> dict[str, Any]:
    """Return the taus of the scores themselves, and of the model by input and number."""
    published, table = load_nas_bench_macro(TABLE), load_macro()
    paths = [point["path"] for point in study["points"]]
    rows = published.space.encode(paths)
    results = published.accuracies[[published.index(path) for path in paths]]
    truth = results.mean(axis=1)
    given: dict[str, np.ndarray | None] = {WITHOUT: None}
    for name in sorted(study["points"][0].keys() - {"path", "accuracy", *TRIVIAL}):
        given[name] = np.array([point[name] for point in study["points"]], dtype=np.float64)
    found: dict[str, Any] = {
        "alone": {name: tau(x, truth) for name, x in given.items() if x is not None}
    }
    for number, seed in itertools.product(numbers, range(draws)):
        generator = np.random.default_rng(seed)
        pool = generator.permutation(len(rows))[: len(rows) // 2]
        places = d_optimal(rows[pool], published.space.num_choices)
        chosen = pool[list(itertools.islice(places, number))]
        trained = results[chosen, generator.integers(results.shape[1], size=number)]
        others = np.setdiff1d(np.arange(len(rows)), chosen)
        for name, scores in given.items():
            model = PathModel(table.space, table.costs)
            known, asked = (None, None) if scores is None else (scores[chosen], scores[others])
            model.fit(rows[chosen], trained, known)
            predicted = model.predict(rows[others], asked)[0]
            values = found.setdefault(name, {}).setdefault(str(number), [])
            values.append(tau(predicted, truth[others]))
        print(f"{number} landmarks, draw {seed + 1}/{draws}", file=sys.stderr, flush=True)
    return found


def describe(found: dict[str, Any]) -> str:
    """Return a Markdown table of mean taus, with the standard deviation of a draw."""
    inputs = [name for name in found if name != "alone"]
    numbers = list(found[WITHOUT])
    lines = [f"| score as an input | alone | {' | '.join(numbers)} |"]
    lines.append("|---" * (len(numbers) + 2) + "|")
    for name in inputs:
        alone = "" if name == WITHOUT else f"{found['alone'][name]:.3f}"
        cells = [f"{np.mean(found[name][n]):.3f} ± {np.std(found[name][n]):.3f}" for n in numbers]
        lines.append(f"| {name} | {alone} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("study", type=Path, help="JSON file of nni-spos correlate")
    parser.add_argument("--draws", type=int, default=50, help="of landmarks, for each number")
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS, help="of landmarks")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    study = json.loads(options.study.read_text(encoding="utf-8"))
    most = len(study["points"]) // 2
    if options.draws < 1 or min(options.numbers) < 2 or max(options.numbers) > most:
        parser.error(f"at least 1 draw, of 2 to {most} landmarks: half of the study's paths.")
    found = measure(study, options.numbers, options.draws)
    print(json.dumps(found, indent=2) if options.json else describe(found))


if __name__ == "__main__":
    main()
