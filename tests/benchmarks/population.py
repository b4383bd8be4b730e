"""Score the generations of a real search together, and one path at a time.

Run ``python tests/benchmarks/population.py``. A supernet is trained for a few epochs, an evolution
searches with it, and some of its generations are scored again, by

- together: `evaluate_paths`, the generation in one pass over the images;
- alone: `evaluate_path` for each path, with the supernet and the images in memory;
- released: as the paper's released code does for each candidate: read the checkpoint, build the
  network, load its weights, reset and recalibrate BatchNorm, score, with contiguous tensors.

The last two are timed on some paths of the generation, whose share is stated; rounds interleave
the three. The arithmetic saving is the multiply-adds of all paths over those that the shared pass
does, counted while it runs. Scores of the first two must be the same.

``--recipe FILE`` does this with a recipe of any task, such as that of examples/segmentation; its
files are written to a temporary folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
from saving import arithmetic_saving

if TYPE_CHECKING:
    from nni_spos.path import Path
    from nni_spos.recipe.recipe import Recipe

RECIPE = """
output: {folder}
space:
  name: {space}
data: {data}
supernet: {{epochs: {epochs}, batch_size: 64, learning_rate: 0.1, warmup_steps: 20}}
evaluation: {{recalibration_images: {recalibration}, batch_size: {batch}}}
search:
  constraints: ["flops <= {limit}"]
  population_size: {population}
  num_generations: {generations}
retrain: {{epochs: 1}}
"""

DATA = {
    "digits": "{{name: digits, augmentation: none, num_validation: 500}}",
    "fashion_mnist": "{{name: fashion_mnist, num_train: 4000, num_validation: 1000}}",
    "generated": (
        "{{name: image_folder, root: {folder}/images, image_size: 224, augmentation: none, "
        "num_validation: 64}}"
    ),
}


def generate_images(folder: FilePath, number: int = 192, size: int = 224) -> None:
    """Write JPEG files of noise, of two classes, which are scored as fast as photographs."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for i in range(number):
        coarse = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        file = folder / "train" / f"class{i % 2}" / f"{i:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((size, size)).save(file)


class Bench:
    """A trained supernet and the generations of a search with it.

    Parameters
    ----------
    recipe
        What to train and to search.
    """

    def __init__(self, recipe: Recipe):
        import torch

        from nni_spos.costs.stored import load_costs
        from nni_spos.search.running import run_search
        from nni_spos.search.scorer import open_scorer
        from nni_spos.supernet.training import train_supernet

        self.recipe = recipe
        train_supernet(recipe)
        self.costs = load_costs(recipe)[1]
        self.scorer = open_scorer(recipe, cached=False)
        results = run_search(recipe, self.scorer)
        self.generations: dict[int, list[Path]] = {}
        for candidate in results.candidates:
            self.generations.setdefault(candidate.generation, []).append(candidate.path)
        self.synchronise: Callable[[], None] = (
            torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
        )

    def together(self, paths: Sequence[Path]) -> list[dict[str, float]]:
        """Score a generation in one pass."""
        return self.scorer.score_many(paths)

    def alone(self, paths: Sequence[Path]) -> list[dict[str, float]]:
        """Score one path after another."""
        from nni_spos.scoring.evaluation import evaluate_path

        scorer = self.scorer
        found = [
            evaluate_path(scorer.supernet, path, scorer.data, scorer.settings) for path in paths
        ]
        return [dict(x.figures) for x in found]

    def released(self, paths: Sequence[Path]) -> None:
        """Score one path after another, each from the checkpoint on."""
        from nni_spos.modules.subnet import extract_subnet
        from nni_spos.scoring.evaluation import score
        from nni_spos.scoring.recalibration import recalibrate
        from nni_spos.supernet import load_supernet, restore_supernet
        from nni_spos.supernet.building import build_recipe_supernet

        settings, data = self.scorer.settings, self.scorer.data
        for path in paths:
            supernet = build_recipe_supernet(self.recipe)
            restore_supernet(supernet, load_supernet(self.recipe.checkpoint))
            subnet = extract_subnet(supernet, path)
            number = settings.recalibration_images
            images = data.recalibration_batches(number, settings.batch_size, settings.seed)
            recalibrate(subnet, images, channels_last=False)
            batches = data.validation_batches(settings.batch_size)
            score(subnet, batches, channels_last=False, task=data.task)


def measure(bench: Bench, paths: Sequence[Path], repeats: int, sample: int) -> dict[str, Any]:
    """Return seconds per candidate of each way, in every round, and ratios of the medians."""
    generator = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"together": [], "alone": [], "released": []}
    worst: dict[str, float] = {}
    for number in range(repeats):
        some = [paths[i] for i in generator.permutation(len(paths))[:sample]]
        ways = [("together", bench.together, paths), ("alone", bench.alone, some)]
        ways.append(("released", bench.released, some[: max(1, sample // 4)]))  # type: ignore[arg-type]
        results: dict[str, Any] = {}
        for name, way, chosen in ways[number % 3 :] + ways[: number % 3]:
            start = time.perf_counter()
            results[name] = way(chosen)
            bench.synchronise()
            seconds[name].append((time.perf_counter() - start) / len(chosen))
        scores = [results["together"][paths.index(path)] for path in some]
        for one, other in zip(scores, results["alone"], strict=True):
            for name, value in other.items():
                # A pixel whose best two classes are the same up to rounding counts for either.
                assert one[name] == value or not name.startswith("top"), (one, other)
                worst[name] = max(worst.get(name, 0.0), abs(one[name] - value))
        print(f"round {number + 1}/{repeats}", file=sys.stderr, flush=True)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    scorer = bench.scorer
    shape = scorer.data.spec.input_shape
    saving = arithmetic_saving(scorer.supernet, bench.costs["flops"], paths, shape)
    return {
        "seconds_per_candidate": medians,
        "candidates_per_second": {name: 1 / value for name, value in medians.items()},
        "alone_over_together": medians["alone"] / medians["together"],
        "released_over_together": medians["released"] / medians["together"],
        "arithmetic_saving": saving,
        "share_of_saving": medians["alone"] / medians["together"] / saving,
        "largest_differences": worst,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--space", default="shufflenet_small")
    parser.add_argument("--recipe", type=FilePath, help="instead of the options for one")
    parser.add_argument("--data", choices=sorted(DATA), default="fashion_mnist")
    parser.add_argument("--limit", default="2630k", help="of the multiply-adds")
    parser.add_argument("--epochs", type=int, default=4, help="of the supernet")
    parser.add_argument("--population", type=int, default=50)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000, help="for recalibration")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sample", type=int, default=8, help="paths that are scored alone")
    parser.add_argument("--threads", type=int, help="of PyTorch; by default its own choice")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)

    import torch

    from nni_spos.costs.build import build_here
    from nni_spos.recipe.recipe import load_recipe

    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        file = FilePath(folder) / "recipe.yml"
        if options.recipe is None and options.data == "generated":
            generate_images(FilePath(folder) / "images")
        file.write_text(
            RECIPE.format(
                folder=folder,
                space=options.space,
                data=DATA[options.data].format(folder=folder),
                epochs=options.epochs,
                recalibration=options.images,
                batch=min(250, options.images),
                limit=options.limit,
                population=options.population,
                generations=options.generations,
            )
        )
        recipe = load_recipe(options.recipe or file)
        recipe = dataclasses.replace(recipe, output=FilePath(folder) / "output")
        build_here(recipe)
        bench = Bench(recipe)
        last = max(bench.generations)
        chosen = sorted({0, min(4, last), min(9, last), last})
        rows = {
            number + 1: measure(bench, bench.generations[number], options.repeats, options.sample)
            for number in chosen
        }
    report = {
        "settings": {
            "space": recipe.space.name,
            "data": recipe.data.name,
            "population": recipe.search.population_size,
            "threads": torch.get_num_threads(),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
            "torch": torch.__version__,
        },
        "generations": rows,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in report["settings"].items()))
    print(f"{'generation':<12}{'together/s':>12}{'alone/s':>10}{'released/s':>12}"
          f"{'alone':>8}{'saving':>8}{'share':>7}{'released':>10}")  # fmt: skip
    for number, row in rows.items():
        speed = row["candidates_per_second"]
        print(
            f"{number:<12}{speed['together']:>12.2f}{speed['alone']:>10.2f}"
            f"{speed['released']:>12.2f}{row['alone_over_together']:>8.2f}"
            f"{row['arithmetic_saving']:>8.2f}{row['share_of_saving']:>7.2f}"
            f"{row['released_over_together']:>10.2f}"
        )
    print(f"peak memory {report['peak_memory_mb']:.0f} MB; ratios are times over 'together'")


if __name__ == "__main__":
    main()
