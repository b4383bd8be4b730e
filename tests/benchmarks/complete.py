"""Score all 6561 paths of the NAS-Bench-Macro space as one population.

Run ``python tests/benchmarks/complete.py``. On handwritten digits of 8 pixels, so that it takes
minutes; the weights are random, which takes as long as trained ones. The time of scoring paths one
at a time is measured on some of them. Savings are stated in units that run (9840 nodes of the tree
of units, instead of 8 for each of 6561 paths), in multiply-adds and in seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from saving import arithmetic_saving


def measure(num_images: int, num_alone: int, prefix: int) -> dict[str, Any]:
    """Return times and savings of the paths that agree with the first one in `prefix` units."""
    import torch

    from nni_spos.data import open_data
    from nni_spos.path import PathSpace
    from nni_spos.profilers import build_costs
    from nni_spos.recipe.data_settings import DataSettings
    from nni_spos.recipe.search_settings import EvaluationSettings
    from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
    from nni_spos.scoring.prefix_tree import PrefixTree
    from nni_spos.spaces import Form, build_space
    from nni_spos.supernet import SinglePathOneShot

    arguments = {"num_classes": 10, "in_channels": 1, "input_size": 8}
    torch.manual_seed(0)
    space = build_space("nasbench_macro", arguments, Form.SUPERNET)
    flops = build_costs(space, (1, 8, 8))["flops"]
    supernet = SinglePathOneShot().mutate_model(space).to(memory_format=torch.channels_last)
    data = open_data(
        DataSettings(
            "digits",
            image_size=8,
            augmentation="none",
            num_train=num_images,
            num_validation=num_images,
        )
    )
    settings = EvaluationSettings(recalibration_images=num_images, batch_size=num_images)
    labels = PathSpace.from_model_space(supernet)
    indices = labels.enumerate()
    indices = indices[(indices[:, :prefix] == indices[0, :prefix]).all(axis=1)]
    paths = labels.decode(indices)
    chosen = np.random.default_rng(0).permutation(len(paths))[:num_alone]

    start = time.perf_counter()
    together = evaluate_paths(supernet, paths, data, settings)
    seconds = time.perf_counter() - start
    peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    alone = [evaluate_path(supernet, paths[i], data, settings) for i in chosen]
    seconds_alone = (time.perf_counter() - start) / len(chosen) * len(paths)
    for i, expected in zip(chosen, alone, strict=True):
        assert together[i].top1 == expected.top1, (together[i], expected)

    units = PrefixTree(labels, paths, [frozenset([label]) for label in labels])
    return {
        "paths": len(paths),
        "images": num_images,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "seconds_one_at_a_time": seconds_alone,
        "unit_runs": [units.num_nodes, len(paths) * len(labels)],
        "saving_in_multiply_adds": arithmetic_saving(supernet, flops, paths, (1, 8, 8)),
        "saving_in_seconds": seconds_alone / seconds,
        "peak_memory_mb": peak_memory_mb,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print lines or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--alone", type=int, default=50, help="paths that are scored alone")
    parser.add_argument("--prefix", type=int, default=0, help="units that all paths agree in")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args(arguments)
    report = measure(options.images, options.alone, options.prefix)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for name, value in report.items():
        print(f"{name:<26}{value:.4g}" if isinstance(value, float) else f"{name:<26}{value}")


if __name__ == "__main__":
    main()
