"""How many validation images a search scores if paths that cannot be among the best are dropped.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/racing.py RECIPE``; the supernet of the recipe is
trained first if it is not there. Each search is made twice, with and without a race for as many
places as there are parents. A winner is the same if its score on all images is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from nni_spos.cost_table import Costs
from nni_spos.costs.stored import load_costs
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.search.building import build_search
from nni_spos.search.evaluating import ask_all, evaluate_all
from nni_spos.search.scorer import open_scorer
from nni_spos.supernet.training import ensure_supernet


def search(
    recipe: Recipe, space: PathSpace, costs: Costs, places: int | None, seed: int
) -> dict[str, Any]:
    """Return the winner of a search, the images that were scored, and the seconds."""
    evaluation = dataclasses.replace(recipe.evaluation, racing=places)
    recipe = dataclasses.replace(recipe, evaluation=evaluation).with_search(
        {"seed": seed}, "racing"
    )
    scorer = open_scorer(recipe, cached=False)
    found = build_search(recipe.search, space, costs)
    begin = time.process_time()
    while paths := ask_all(found):
        for _ in evaluate_all(found, paths, scorer, lambda share: None):
            pass
    seconds = time.process_time() - begin
    images = len(found.candidates) * scorer.data.num_validation
    return {
        "best": found.best.path,
        "score": found.best.metrics[found.objective],
        "scored": images if scorer.race is None else scorer.race.num_scored,
        "images": images,
        "seconds": seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each search or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe", help="with a supernet, or to train one for")
    parser.add_argument("--searches", type=int, default=20, help="each with a seed of its own")
    parser.add_argument("--places", type=int, default=10, help="of the race (default 10)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args(arguments)
    if min(options.searches, options.places) < 1:
        parser.error("numbers must be at least 1.")
    recipe = load_recipe(options.recipe)
    ensure_supernet(recipe)
    space, costs = load_costs(recipe)
    rows = []
    for seed in range(options.searches):
        whole = search(recipe, space, costs, None, seed)
        raced = search(recipe, space, costs, options.places, seed)
        rows.append({"whole": whole, "raced": raced})
        print(
            f"seed {seed}: {raced['scored']:,} of {whole['scored']:,} images, best "
            f"{raced['score']:.3f} and {whole['score']:.3f}, "
            f"{'the same path' if raced['best'] == whole['best'] else 'another path'}, "
            f"{raced['seconds']:.1f} and {whole['seconds']:.1f} s",
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        )
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
