"""A space that runs as one network, with choices that change between runs, and times its units."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_spos.cost_table import Factor
from nni_spos.errors import CostError
from nni_spos.latency.stopwatch import Stopwatch
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.profilers.trace import layer_choices

MAX_COMBINATIONS = 256
"""Choices of units that share labels are timed in every combination, up to so many."""

UnitLabels = tuple[str, ...]
"""Labels whose units are timed together, because units inside others or twice share them."""
Samples = dict[UnitLabels, dict[tuple[Choice, ...], list[float]]]
"""Milliseconds by group and combination of its labels' choices."""


class SwitchedNetwork:
    """A space that runs one path after another, and times its outermost units.

    Parameters
    ----------
    model
        Its units are made to follow `path`; nothing else of it changes.
    space
        Labels and choices of the model.
    stopwatch
        Read before and after each unit.

    Raises
    ------
    CostError
        A mutable is not a LayerChoice, or too many choices depend on each other.
    """

    def __init__(self, model: ModelSpace, space: PathSpace, stopwatch: Stopwatch):
        self.path: Path = {}
        self._model = model
        self._space = space
        self._stopwatch = stopwatch
        self._spans: list[tuple[UnitLabels, Any, Any]] = []
        for unit in layer_choices(
            model, "only the latencies of LayerChoice units can be measured."
        ):
            unit.forward = functools.partial(self._choose, unit)
        units = list(dict.fromkeys(_outermost(model)))
        groups = _groups([_labels(unit) for unit in units])
        for unit in units:
            group = next(group for group in groups if unit.label in group)
            unit.forward = functools.partial(self._timed, unit, group)
        self._combinations = {group: self._combine(group) for group in groups}
        self._rounds: list[Samples] = []

    def _combine(self, group: UnitLabels) -> list[tuple[Choice, ...]]:
        if math.prod(len(self._space[label]) for label in group) > MAX_COMBINATIONS:
            raise CostError(
                f"the choices of {', '.join(group)} depend on each other, in more than the "
                f"{MAX_COMBINATIONS} combinations that can be measured."
            )
        return list(itertools.product(*(self._space[label] for label in group)))

    def _choose(self, unit: LayerChoice, *inputs: Any, **named: Any) -> Any:
        return unit[self.path[unit.label]](*inputs, **named)

    def _timed(self, unit: LayerChoice, group: UnitLabels, *inputs: Any, **named: Any) -> Any:
        start = self._stopwatch.read()
        output = self._choose(unit, *inputs, **named)
        self._spans.append((group, start, self._stopwatch.read()))
        return output

    def time_choices(self, images: Tensor, repeats: int, generator: np.random.Generator) -> None:
        """Run a round of paths that together make every choice, each among random others.

        Parameters
        ----------
        images
            Input of the model.
        repeats
            Timed runs of each path, after one that is not timed.
        generator
            Decides which choices are together in a path.
        """
        samples: Samples = {
            group: {combination: [] for combination in combinations}
            for group, combinations in self._combinations.items()
        }
        self._rounds.append(samples)
        orders = {
            group: generator.permutation(len(combinations))
            for group, combinations in self._combinations.items()
        }
        for run in range(max(map(len, orders.values()))):
            made = {
                group: self._combinations[group][order[run % len(order)]]
                for group, order in orders.items()
            }
            for group, combination in made.items():
                self.path.update(zip(group, combination, strict=True))
            self._model(images)
            for _ in range(repeats):
                for group, ms in self._time_units(images).items():
                    samples[group][made[group]].append(ms)

    def _time_units(self, images: Tensor) -> dict[UnitLabels, float]:
        """Run the path once, and return what the units of each group took, in ms."""
        self._stopwatch.finish()
        self._spans.clear()
        self._model(images)
        self._stopwatch.finish()
        took = dict.fromkeys(self._combinations, 0.0)
        for group, start, end in self._spans:
            took[group] += self._stopwatch.milliseconds(start, end)
        return took

    def factors(self, slowness: npt.NDArray[np.float64]) -> list[Factor]:
        """Return a factor for each group: medians over all rounds, in ms.

        Parameters
        ----------
        slowness
            What times are divided by, for each round.
        """
        factors = []
        for group, combinations in self._combinations.items():
            medians = [
                np.median(
                    [
                        ms / slow
                        for samples, slow in zip(self._rounds, slowness, strict=True)
                        for ms in samples[group][combination]
                    ]
                )
                for combination in combinations
            ]
            shape = [len(self._space[label]) for label in group]
            factors.append(Factor(group, np.array(medians).reshape(shape)))
        return factors


def _outermost(module: nn.Module) -> Iterator[LayerChoice]:
    """Yield the units that are not inside another one."""
    for child in module.children():
        if isinstance(child, LayerChoice):
            yield child
        else:
            yield from _outermost(child)


def _labels(unit: LayerChoice) -> UnitLabels:
    """Labels of a unit and of those inside it, without NNI's subclass of str."""
    return tuple(str.__str__(label) for label in unit.simplify())


def _groups(labels: Iterable[UnitLabels]) -> list[UnitLabels]:
    """Merge those that share a label."""
    groups: list[UnitLabels] = []
    for group in labels:
        touching = [other for other in groups if set(other) & set(group)]
        groups = [other for other in groups if other not in touching]
        groups.append(tuple(dict.fromkeys(itertools.chain(*touching, group))))
    return groups
