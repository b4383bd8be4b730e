"""NAS-Bench-Macro: 6561 networks of 8 units with 3 choices, each trained on CIFAR-10.

Su et al., Prioritized Architecture Sampling with Monte-Carlo Tree Search, CVPR 2021. The table is
looked for in the folder ``shared/data`` beside the repository.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs, CostTable, Factor
from nni_spos.path import PathKey, PathSpace

TABLE = FilePath(__file__).parents[3] / "shared" / "data" / "nas-bench-macro_cifar10.json"
NUM_UNITS = 8
CHOICES = ("0", "1", "2")
SPACE = PathSpace({f"unit_{i}": CHOICES for i in range(NUM_UNITS)})


@dataclass(frozen=True)
class MacroTable:
    """What is known of all paths.

    Parameters
    ----------
    accuracies
        Mean test accuracy of three trainings, in percent, by path.
    costs
        Exact tables of ``flops`` and ``params``.
    space
        Labels and choices; positions in it are the keys.
    """

    accuracies: Mapping[PathKey, float]
    costs: Costs
    space: PathSpace = SPACE

    def best(self, limit: Constraint) -> float:
        """Return the highest accuracy under a limit."""
        values = np.array(list(self.accuracies.values()))
        prices = self.costs[limit.metric].price_many(np.array(list(self.accuracies)))
        return float(values[(limit.low <= prices) & (prices <= limit.high)].max())

    def quantile(self, share: float) -> Constraint:
        """Return the limit on FLOPs that a share of all paths keeps."""
        prices = self.costs["flops"].price_many(np.array(list(self.accuracies)))
        return Constraint("flops", high=float(np.quantile(prices, share, method="lower")))


def load_macro(file: FilePath = TABLE) -> MacroTable:
    """Read the published table; its costs are sums over the units, which is checked."""
    entries = json.loads(file.read_text(encoding="utf-8"))
    keys = list(itertools.product(range(len(CHOICES)), repeat=NUM_UNITS))
    rows = [entries["".join(map(str, key))] for key in keys]
    accuracies = {key: row["mean_acc"] for key, row in zip(keys, rows, strict=True)}
    costs = {}
    for metric in ("flops", "params"):
        published = {key: row[metric] for key, row in zip(keys, rows, strict=True)}
        costs[metric] = _table(metric, published)
        prices = costs[metric].price_many(np.array(keys)).tolist()
        assert prices == list(published.values()), f"{metric} is no sum over the units"
    return MacroTable(accuracies, costs)


def _table(metric: str, published: Mapping[PathKey, int]) -> CostTable:
    first = (0,) * NUM_UNITS
    factors = [
        Factor(
            (label,),
            np.array(
                [
                    published[(*first[:unit], choice, *first[unit + 1 :])] - published[first]
                    for choice in range(len(CHOICES))
                ]
            ),
        )
        for unit, label in enumerate(SPACE)
    ]
    return CostTable(metric, SPACE, published[first], factors)
