"""How short the trainings of landmarks may be: NAS-Bench-Macro on CIFAR-10.

Run ``python tests/benchmarks/short_landmarks.py --output FOLDER``. The landmarks are chosen
D-optimally and trained by ``nni-spos retrain``, each for several numbers of epochs. For each
number: Kendall's tau of these trainings to the published table, of the same paths; and that of a
model which learns from them, on all other paths. Beside it stands a model of the table's own first
training of each landmark.

Run it again, with the same arguments, to go on where it was cut off. ``--part 0/2`` and ``1/2``
train every second landmark, so that two processes share the work; without it all are trained, and
those that are finished are only read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml
from cifar10_trainings import add_options, find_images, recipe
from landmarks import tau
from nasbench_macro import TABLE, load_macro

from nni_spos.evolution.landmarks import choose_landmarks
from nni_spos.path import Path
from nni_spos.prediction import PathModel
from nni_spos.spaces import load_nas_bench_macro
from nni_spos.spaces.nasbench_macro import code_from_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser)
    parser.add_argument("--landmarks", type=int, default=24)
    parser.add_argument("--epochs", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--part", default="0/1", help="of the landmarks: NUMBER/OF_HOW_MANY")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    options = parser.parse_args(arguments)
    part, parts = map(int, options.part.split("/"))
    options.output.mkdir(parents=True, exist_ok=True)
    published = load_nas_bench_macro(TABLE)
    table = load_macro()
    # The costs are by the table's own labels, in the order of those of our space.
    chosen = choose_landmarks(table.space, table.costs, options.landmarks)
    rows = table.space.encode(chosen)
    paths = published.space.decode(rows)
    wanted = paths[part % parts :: parts]
    found = {epochs: train(options, wanted, epochs) for epochs in options.epochs}
    if parts > 1:
        return 0
    result = judge(found, rows, published.accuracies, table)
    print(json.dumps(result) if options.json else describe(result))
    return 0


def train(options: argparse.Namespace, paths: Sequence[Path], epochs: int) -> list[float]:
    """Return the test accuracy of each path in percent; what is finished is only read."""
    from nni_spos.recipe.recipe import load_recipe
    from nni_spos.retraining.retrain import retrain
    from nni_spos.training import Start

    images, found = find_images(options), []
    for number, path in enumerate(paths):
        code = code_from_path(path)
        file = options.output / f"{code}_{epochs}.yml"
        settings = argparse.Namespace(**{**vars(options), "epochs": epochs})
        content = recipe(settings, images, {"seed": 0, "keep_checkpoints": 1})
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        trained = retrain(load_recipe(file), path, file.with_suffix(".pt"), Start.CONTINUE)
        assert trained.test is not None
        found.append(trained.test["top1"])
        line = f"{epochs} epochs, {number + 1}/{len(paths)}: {code} {found[-1]:.2f} %"
        print(line, file=sys.stderr, flush=True)
    return found


def judge(
    found: dict[int, list[float]], rows: np.ndarray, accuracies: np.ndarray, table: Any
) -> dict[str, dict[str, float]]:
    """Return for each number of epochs the tau of the trainings, and of the model of them."""
    at = np.ravel_multi_index(rows.T, table.space.num_choices)
    truth, paths = accuracies.mean(axis=1), table.space.enumerate()
    others = np.setdiff1d(np.arange(len(paths)), at)
    known = {**{str(epochs): x for epochs, x in found.items()}, "published": accuracies[at, 0]}
    judged = {}
    for name, results in known.items():
        model = PathModel(table.space, table.costs).fit(rows, results)
        judged[name] = {
            "top1": float(np.mean(results)),
            "trainings": tau(np.asarray(results), truth[at]),
            "model": tau(model.predict(paths[others])[0], truth[others]),
        }
    return judged


def describe(found: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table."""
    lines = [
        "| epochs | top-1 (%) | tau of the trainings | tau of the model |",
        "|---:|---:|---:|---:|",
    ]
    lines += (
        f"| {name} | {x['top1']:.1f} | {x['trainings']:.3f} | {x['model']:.3f} |"
        for name, x in found.items()
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
