"""What training techniques gain: one path of NAS-Bench-Macro on CIFAR-10, with and without.

Run ``python tests/benchmarks/techniques.py --output FOLDER``. Every training is one of
``nni-spos retrain``: with the same epochs, batches and seeds, and

- plain: as the table of NAS-Bench-Macro was made, SGD with linear decay;
- techniques: the same with cosine decay, RandAugment, CutMix and averaged weights, as strong as
  suits a short training;
- kd: plain, taught by the space's largest path, which is trained first.

Run it again, with the same arguments, to go on where it was cut off; more seeds, or variants, may
be asked for later. ``results.json`` in the folder has the test accuracies so far. The images are
those of ``shared/data`` beside the repository, as JPEG files and so slightly lossy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path as FilePath
from typing import Any

import yaml
from cifar10_trainings import add_options, find_images, recipe

CODE = "12222222"

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "techniques": {
        "sched": "cosine",
        "aa": "rand-m5-mstd0.5",
        "cutmix": 1.0,
        "mixup_prob": 0.5,
        "model_ema": True,
        "model_ema_decay": 0.99,
    },
    "kd": {"kd": "largest"},
}


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, and print the gains."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    results = run(options, find_images(options))
    (options.output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results) if options.json else summary(results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_options(parser)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--code", default=CODE, help="the path, as the table names it")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    return parser


def run(options: argparse.Namespace, images: FilePath) -> dict[str, dict[str, float]]:
    """Return the test accuracy in percent by variant and seed; what is finished is only read."""
    from nni_spos.recipe.recipe import load_recipe
    from nni_spos.retraining.retrain import retrain
    from nni_spos.spaces.nasbench_macro import path_from_code
    from nni_spos.training import Start

    path = path_from_code(options.code)
    found: dict[str, dict[str, float]] = {name: {} for name in options.variants}
    for seed in range(options.seeds):  # all variants of a seed first: an early end compares too
        for name in options.variants:
            file = options.output / f"{name}_{seed}.yml"
            content = recipe(options, images, {"seed": seed, **VARIANTS[name]})
            file.write_text(yaml.safe_dump(content, sort_keys=False))
            network = options.output / f"{name}_{seed}.pt"
            trained = retrain(load_recipe(file), path, network, Start.CONTINUE)
            assert trained.test is not None
            found[name][str(seed)] = trained.test["top1"]
            line = f"{name}, seed {seed}: test top-1 {trained.test['top1']:.2f} %"
            print(line, file=sys.stderr, flush=True)
    return found


def summary(results: dict[str, dict[str, float]]) -> str:
    """Return mean and spread of each variant, and its gain over plain with the same seeds."""
    lines = ["| variant | seeds | test top-1 | gain in points |", "|---|---:|---:|---:|"]
    plain = results.get("plain", {})
    for name, values in results.items():
        gains = [value - plain[seed] for seed, value in values.items() if seed in plain]
        gain = "" if name == "plain" or not gains else spread(gains, "+")
        lines.append(f"| {name} | {len(values)} | {spread(list(values.values()))} | {gain} |")
    return "\n".join(lines)


def spread(values: list[float], sign: str = "") -> str:
    """Return mean and standard deviation, for people."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"


if __name__ == "__main__":
    sys.exit(main())
