"""Whether a table of latencies in a runtime predicts, and whether a limit on it is kept.

Run ``OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/runtime_latency.py --runtime onnxruntime
shufflenet shufflenet_channels resnet_small`` while nothing else runs on the machine; all of it runs
on the CPU. For each space:

- a table of all choices, and how well it predicts whole networks of other random paths;
- the path with the most multiply-adds under a limit that 40 % of all paths keep by the table. It is
  measured in turns with random paths, which say how fast the machine is by then.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from latency import search
from tqdm import tqdm

from nni_spos.latency.exported import RuntimeProfiler
from nni_spos.latency.runtimes import RUNTIMES
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.spaces import Form, build_space, default_input_shape

ARGUMENTS = {"resnet_small": {"quantizer": "symmetric", "bit_pairs": [[2, 4], [4, 8], [8, 8]]}}
"""Of spaces; networks that round floats have no kernels."""
NUM_REFERENCES = 10


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a space."""
    space = build_space(name, ARGUMENTS.get(name, {}), Form.SUBNET)
    shape = default_input_shape(space)
    profiler = RuntimeProfiler(options.runtime, threads=options.threads, rounds=options.rounds)
    with tqdm(total=options.rounds, desc=name, unit="round") as bar:
        table = profiler.profile(space, shape, options.paths, name=name, on_round=bar.update)
    limit, path = search(table, options.generations)
    labels = PathSpace.from_model_space(space)
    draws = UniformPrior(labels).draw(NUM_REFERENCES, np.random.default_rng(2))
    references = labels.decode(draws)
    found, *others = profiler.measure_paths(space, [path, *references], shape).tolist()
    speed = np.median([x / table.costs.price(y) for x, y in zip(others, references, strict=True)])
    validation = table.validation
    return {
        "space": name,
        "runtime": table.conditions.runtime,
        "measured_ms": [min(validation.measured_ms), max(validation.measured_ms)],
        "spearman": validation.spearman,
        "mape_percent": validation.mape_percent,
        "limit": str(limit),
        "found_ms": found / float(speed),
        "of_the_limit": found / float(speed) / limit.high,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("spaces", nargs="+", help="names of spaces")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1, help="of one operator")
    parser.add_argument("--rounds", type=int, default=40, help="of measuring")
    parser.add_argument("--paths", type=int, default=30, help="random paths to predict")
    parser.add_argument("--generations", type=int, default=20, help="of the search")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.spaces:
        rows.append(row := measure(name, options))
        low, high = row["measured_ms"]
        print(
            f"| {name} | {row['runtime']} | {low:.2f} to {high:.2f} | {row['spearman']:.3f} | "
            f"{row['mape_percent']:.1f} | {row['limit']} | {row['found_ms']:.2f} | "
            f"{row['of_the_limit']:.3f} |",
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        )
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
