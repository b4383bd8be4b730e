"""What a model sees of a path: how much of its cost each choice brings, and where.

Everything follows from the space and its cost tables, so it is the same for blocks, channels, bit
widths and networks of a user's own.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nni_spos.cost_table import Costs, CostTable
from nni_spos.path import Indices, PathSpace

Numbers = npt.NDArray[np.float64]

SIZE = ("flops", "bitops", "params", "size_bytes")
"""Metrics that say how large a choice is; of each label the first one counts that it changes."""

SLACK = 0.1
"""Part of a halving of height and width that does not count: parameters of BatchNorm blur it."""


class PathInputs:
    """Turn paths into numbers.

    The *size* of a choice is its share of the costs, above that of the cheapest choice of its
    label, as a part of the label's largest: 0 for the cheapest, 1 for the dearest. Where costs of
    several labels depend on each other, the mean over the others counts.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric; without one that a label changes, the sizes of its choices are 0.

    Attributes
    ----------
    stages : ndarray of int, shape (num_labels,)
        Labels whose layers have maps of the same height and width; see `find_stages`.
    """

    def __init__(self, space: PathSpace, costs: Costs):
        self.space = space
        self.stages = find_stages(space, costs)
        self.offsets = np.concatenate([[0], np.cumsum(space.num_choices)])
        """Place of each label's first choice in a row of all choices, shape (num_labels + 1,)."""
        effects = {metric: main_effects(costs[metric]) for metric in SIZE if metric in costs}
        for metric in sorted(costs.keys() - effects.keys()):
            effects[metric] = main_effects(costs[metric])
        sizes = []
        for label, choices in space.items():
            found = (x[label] for x in effects.values() if np.ptp(x[label]) > 0)
            own = next(found, np.zeros(len(choices)))
            low, extent = own.min(), np.ptp(own)
            sizes.append((own - low) / extent if extent > 0 else own - low)
        self._sizes = np.concatenate(sizes)

    @property
    def num_stages(self) -> int:
        """Number of stages."""
        return int(self.stages.max()) + 1

    def sizes(self, indices: Indices) -> Numbers:
        """Return the sizes of paths' choices, from 0 to 1, shape (num_paths, num_labels)."""
        return np.asarray(self._sizes[self.places(indices)])

    def places(self, indices: Indices) -> Indices:
        """Return the places of paths' choices among all choices, shape (num_paths, num_labels)."""
        return np.asarray(indices) + self.offsets[:-1]

    def moments(self, power: float) -> tuple[Numbers, Numbers]:
        """Return mean and variance of each label's size to a power, over its choices."""
        powers, counts = self._sizes**power, np.diff(self.offsets)
        mean = np.add.reduceat(powers, self.offsets[:-1]) / counts
        square = np.add.reduceat(powers**2, self.offsets[:-1]) / counts
        return mean, np.maximum(square - mean**2, 0.0)


def main_effects(table: CostTable) -> dict[str, Numbers]:
    """Return by label what its choices cost, the mean over all choices of other labels."""
    effects = {label: np.zeros(len(choices)) for label, choices in table.space.items()}
    for factor in table.factors:
        for axis, label in enumerate(factor.labels):
            others = tuple(x for x in range(factor.table.ndim) if x != axis)
            effects[label] += factor.table.mean(axis=others)
    return effects


def find_stages(space: PathSpace, costs: Costs) -> npt.NDArray[np.int64]:
    """Return the stage of each label, from 0 on, shape (num_labels,).

    A convolution has as many multiply-adds for each parameter as its output has pixels. So the
    ratio of what a label changes of both says how large its maps are. Labels whose maps have less
    than four times as many pixels are one stage: the first unit of a stage halves height and width
    somewhere inside, and is between two. A label that changes only one of both, such as a bit
    width, is of the stage of the label before it.
    """
    if not {"flops", "params"} <= costs.keys():
        return np.zeros(len(space), dtype=np.int64)
    flops, params = main_effects(costs["flops"]), main_effects(costs["params"])
    pixels = [
        math.log(np.ptp(flops[x]) / np.ptp(params[x]), 4)
        if np.ptp(flops[x]) > 0 and np.ptp(params[x]) > 0
        else math.nan
        for x in space
    ]
    known = [x for x in pixels if not math.isnan(x)]
    last = known[0] if known else 0.0
    levels = []
    for value in pixels:
        last = last if math.isnan(value) else value
        levels.append(math.floor(last - min(known, default=0.0) + SLACK))
    names = {level: number for number, level in enumerate(dict.fromkeys(levels))}
    return np.array([names[level] for level in levels], dtype=np.int64)
