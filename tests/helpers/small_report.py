"""A search of two generations whose figures can be computed by hand."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from nni_spos.cost_table import CostTable, Factor
from nni_spos.costs.stored import save_costs
from nni_spos.evolution import Candidate, Journal, State
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import load_recipe
from nni_spos.search.building import fingerprint

SPACE = PathSpace({"layer_1": ["k3", "k5"], "bits_1": [2, 4], "layer_2": ["k3", "k5"]})
FACTORS = [
    Factor(("layer_1",), np.array([100, 300])),
    Factor(("bits_1", "layer_1"), np.array([[10, 20], [30, 40]])),
    Factor(("layer_1", "layer_2"), np.array([[1, 2], [3, 4]])),
]
COSTS = {
    "flops": CostTable("flops", SPACE, 1000, FACTORS),
    "bitops": CostTable("bitops", SPACE, 0, FACTORS[:1]),
}

# (layer_1, bits_1, layer_2), generation, top-1; None: it failed
OUTCOMES = [
    (("k3", 2, "k3"), 0, 50.0),
    (("k5", 2, "k3"), 0, 60.0),
    (("k3", 4, "k5"), 0, None),
    (("k5", 4, "k5"), 1, 58.0),
    (("k3", 4, "k3"), 1, 70.0),
    (("k3", 2, "k5"), 1, 40.0),
]
BEST = dict(zip(SPACE, ("k3", 4, "k3"), strict=True))


@dataclass(frozen=True)
class Run:
    """Where the files are."""

    recipe: Path
    folder: Path

    @property
    def journal(self) -> Path:
        return self.folder / "search.jsonl"


def write_run(
    root: Path, outcomes=OUTCOMES, *, space=SPACE, costs=COSTS, settings=None, **search
) -> Run:
    """Write a recipe, its cost tables and a journal."""
    root.mkdir(parents=True)
    content = {
        "output": "output",
        "space": {"name": "shufflenet"},
        "data": {"name": "digits"},
        "supernet": {"epochs": 1},
        "retrain": {"epochs": 1},
        "search": {"constraints": ["flops <= 2k"], **search},
    }
    file = root / "recipe.yml"
    file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(file)
    save_costs(recipe, space, costs)
    run = Run(file, recipe.output / "search")
    journal = Journal(run.journal, fingerprint(recipe, space, costs) | (settings or {}))
    for number, (choices, generation, top1) in enumerate(outcomes):
        path = dict(zip(space, choices, strict=True))
        prices = {metric: table.price(path) for metric, table in costs.items()}
        candidate = Candidate(path, number, generation, prices, State.DONE, {"top1": top1})
        if top1 is None:
            failed = {"state": State.FAILED, "metrics": {}, "reason": "out of <memory>"}
            candidate = dataclasses.replace(candidate, **failed)
        journal.append(candidate)
    return run
