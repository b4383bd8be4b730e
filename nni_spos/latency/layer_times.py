"""From the times of layers in whole networks to a table of what each choice takes."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from scipy.optimize import nnls

from nni_spos.cost_table import CostTable, Factor
from nni_spos.metrics import Layer
from nni_spos.path import Path, PathSpace

SEEN_FOR_MEDIAN = 2
"""Times that each combination of choices must have been seen for medians."""

DecidingLabels = tuple[str, ...]
"""Labels that decide what some layers take."""


@dataclass
class _TimedLayers:
    """Layers whose times the same choices decide.

    Parameters
    ----------
    labels
        Of these choices.
    features
        Of each combination: multiply-adds, elements read and written, and number of layers.
    samples
        Milliseconds that were seen of each combination.
    """

    labels: DecidingLabels
    features: dict[tuple[Any, ...], npt.NDArray[np.float64]] = field(default_factory=dict)
    samples: dict[tuple[Any, ...], list[float]] = field(default_factory=lambda: defaultdict(list))


def as_deployed(space: ModelSpace, described: Sequence[Layer]) -> list[Layer]:
    """Return the layers of all paths under the names that they have in the network of a path."""
    inner = _inner_parts(space)
    return [replace(layer, name=_without(layer.name, inner)) for layer in described]


def find_units(space: ModelSpace) -> list[str]:
    """Return the deployed names of units in whose choices nothing else is to choose."""
    inner = _inner_parts(space)
    return [
        _without(name, inner)
        for name, unit in space.named_modules()
        if isinstance(unit, LayerChoice) and len(unit.simplify()) == 1
    ]


def _inner_parts(space: ModelSpace) -> set[str]:
    """Return names of what stands in the place of its unit, once a path is chosen."""
    inner = set()
    for name, unit in space.named_modules():
        if isinstance(unit, LayerChoice):
            inner |= {f"{name}.{choice}" for choice in unit.names}
        elif isinstance(unit, Repeat):
            inner.add(f"{name}.blocks")
    return inner


def _without(name: str, inner: Collection[str]) -> str:
    parts = name.split(".")
    return ".".join(x for i, x in enumerate(parts) if ".".join(parts[: i + 1]) not in inner)


def tabulate(
    space: PathSpace,
    units: Sequence[str],
    described: Sequence[Layer],
    paths: Sequence[Path],
    times: Sequence[Mapping[str, float]],
) -> CostTable:
    """Return a table of what layers take, without a constant.

    Parameters
    ----------
    space
        Labels and their choices.
    units
        Names of units, see `find_units`.
    described
        The layers of all paths, see `as_deployed`.
    paths, times
        Milliseconds of each layer by its name, for each path; "" stands for what is of no layer.
    """
    owners = {layer.name: _owner(layer.name, units) for layer in described}
    labels: dict[str, set[str]] = defaultdict(set)
    for layer in described:
        labels[owners[layer.name]] |= {label for label, _ in layer.condition}
    blocks = {
        owner: tuple(x for x in space if x in found) for owner, found in labels.items() if found
    }
    groups = {owner: _TimedLayers(found) for owner, found in blocks.items()}
    for owner, group in groups.items():
        own = [layer for layer in described if owners[layer.name] == owner]
        for combination in itertools.product(*(space[x] for x in group.labels)):
            made = dict(zip(group.labels, combination, strict=True))
            group.features[combination] = _features(own, made)
    for path, found in zip(paths, times, strict=True):
        for owner, group in groups.items():
            combination = tuple(path[x] for x in group.labels)
            taken = sum(ms for name, ms in found.items() if _is_inside(name, owner))
            group.samples[combination].append(taken)
    factors = [_factor(group, space) for group in groups.values()]
    return CostTable("units", space, 0.0, factors)


def _owner(name: str, units: Sequence[str]) -> str:
    """Return the unit that a layer is in, or the layer."""
    return next((x for x in units if _is_inside(name, x)), name)


def _is_inside(name: str, owner: str) -> bool:
    return name == owner or name.startswith(f"{owner}.")


def _features(layers: Sequence[Layer], made: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    found = np.zeros(3)
    for layer in layers:
        if all(made[label] == choice for label, choice in layer.condition):
            elements = math.prod(layer.input_shape) + math.prod(layer.output_shape)
            bits = (layer.weight_bits or 32) / 32
            found += [layer.macs * bits, elements, 1]
    return found


def _factor(group: _TimedLayers, space: PathSpace) -> Factor:
    """Return what each combination takes: its median, or by a line through all that were seen."""
    combinations = list(group.features)
    shape = [len(space[x]) for x in group.labels]
    if all(len(group.samples.get(x, ())) >= SEEN_FOR_MEDIAN for x in combinations):
        medians = [float(np.median(group.samples[x])) for x in combinations]
        return Factor(group.labels, np.array(medians).reshape(shape))
    rows = [group.features[x] for x, seen in group.samples.items() for _ in seen]
    taken = [ms for seen in group.samples.values() for ms in seen]
    matrix = np.array(rows)
    scale = np.where(matrix.max(axis=0) > 0, matrix.max(axis=0), 1.0)
    weights, _ = nnls(matrix / scale, np.array(taken))
    table = np.array([group.features[x] / scale @ weights for x in combinations])
    return Factor(group.labels, table.reshape(shape))
