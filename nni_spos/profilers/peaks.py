"""What the operators of all paths need of memory, from runs of a few of them without data.

A run of a path's network gives the operators in their order, and the tensors that each reads and
writes. A tensor is needed from the operator that writes it to the last one that reads it. Across
runs a size is matched with the choice that decides it; at an operator the sizes of the tensors
that are needed then add up.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nni_spos.errors import CostError
from nni_spos.metrics.network import Condition
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.profilers.copying import copy_network
from nni_spos.profilers.dry_run import run_dry
from nni_spos.profilers.expansion import use_stand_in

VALUE_BYTES = 4
"""Of a value of an activation, whatever its type is in PyTorch: as float32."""

EXTRA_RUNS, CHECKED_RUNS, MOST_RUNS = 4, 4, 200
"""Random paths that are run beside those that have every choice; that the result is compared with;
and at most, until each size was seen for every choice that decides it."""

MOST_COMBINATIONS = 100_000
"""Of the choices that decide what an operator needs."""

Size = tuple[Any, ...]
"""Of a tensor: whole numbers, and labels whose choices decide a number."""

Dimensions = Mapping[str, Mapping[Choice, int]]


@dataclass
class _Tensor:
    """A piece of memory in one run.

    Parameters
    ----------
    key
        Which one it is, the same in every run: the layer, and how many came before in it.
    shape
        Of the tensor that was written there first.
    born, died
        Positions of the first and of the last operator that needs it.
    """

    key: tuple[Any, ...]
    shape: tuple[int, ...]
    born: int
    died: int


@dataclass
class _RecordedRun:
    """The operators of a path.

    Parameters
    ----------
    path
        Label to choice.
    places
        For each operator the layer that it is in, and the choices of the units around it.
    tensors
        Pieces of memory.
    """

    path: Path
    places: list[tuple[str, Condition]] = field(default_factory=list)
    tensors: list[_Tensor] = field(default_factory=list)

    def needs(self) -> Iterator[tuple[int, list[_Tensor]]]:
        """Yield each operator's position, with the memory that is needed at it."""
        for position in range(len(self.places)):
            yield position, [x for x in self.tensors if x.born <= position <= x.died]

    def peak(self) -> int:
        """Return the most bytes that are needed at a time."""
        sums = (sum(math.prod(x.shape) for x in needed) for _, needed in self.needs())
        return VALUE_BYTES * max(sums, default=0)


def find_peaks(
    space: ModelSpace, input_shape: Sequence[int], path_space: PathSpace
) -> list[tuple[Condition, int]]:
    """Return what operators need, in bytes, with the choices that a path must make for it.

    The peak of a path is the largest of those whose choices it makes.

    Parameters
    ----------
    space
        A model space, or a network without choices; it is not changed.
    input_shape
        Of one image: (channels, height, width).
    path_space
        Labels and their choices.

    Raises
    ------
    CostError
        It does not run, or a size depends on choices in a way that is not known.
    """
    units = _units(space)
    if not isinstance(space, ModelSpace) or not space.simplify():
        run = _run(space, {}, units, input_shape)
        return [((), run.peak())]
    generator = np.random.default_rng(0)
    paths = [*path_space.covering(), *_random(path_space, EXTRA_RUNS, generator)]
    runs = [_run(space, path, units, input_shape) for path in paths]
    while True:
        sizes = _TensorSizes(path_space, runs)
        if sizes.are_complete or len(runs) >= MOST_RUNS:
            break
        more = _random(path_space, len(runs), generator)
        runs += [_run(space, path, units, input_shape) for path in more]
    found = _expand(runs, sizes, path_space)
    for path in _random(path_space, CHECKED_RUNS, generator):
        _check(found, _run(space, path, units, input_shape))
    return found


def _random(space: PathSpace, number: int, generator: np.random.Generator) -> list[Path]:
    choices = {label: list(values) for label, values in space.items()}
    return [
        {label: values[generator.integers(len(values))] for label, values in choices.items()}
        for _ in range(number)
    ]


def _units(space: nn.Module) -> dict[str, str]:
    """Return the label of each choice unit by its name."""
    return {
        name: str.__str__(module.label)
        for name, module in space.named_modules()
        if isinstance(module, LayerChoice)
    }


def _run(
    space: nn.Module, path: Path, units: Mapping[str, str], input_shape: Sequence[int]
) -> _RecordedRun:
    """Run the network of a path without data."""

    def prepare(device: str) -> Callable[[Tensor], _RecordedRun]:
        copied = copy_network(space, device)
        network = extract_subnet(copied, path) if path else copied
        network.eval()
        for module in network.modules():
            use_stand_in(module, device)
        return lambda image: _record(network, path, units, image)

    return run_dry(prepare, input_shape)[0]


def _record(
    network: nn.Module, path: Path, units: Mapping[str, str], image: Tensor
) -> _RecordedRun:
    """Run a network and note its operators."""
    recorder = _MemoryRecorder(network, path, units)
    recorder.begin(image)
    with recorder:
        output = network(image)
    return recorder.end(output)


class _MemoryRecorder(TorchDispatchMode):
    """Notes which memory each operator reads and writes."""

    def __init__(self, network: nn.Module, path: Path, units: Mapping[str, str]):
        super().__init__()
        self._run = _RecordedRun(dict(path))
        self._units = units
        self._stack: list[str] = [""]
        self._counts: dict[Any, int] = {}
        self._known: dict[int, _Tensor | None] = {}
        """By the identity of the memory; None for weights, and what is computed of them alone."""
        self._kept: list[Any] = []  # so that no two have one identity
        self._reads: list[list[_Tensor]] = []
        self._writes: list[tuple[_Tensor, list[_Tensor]]] = []
        for tensor in itertools.chain(network.parameters(), network.buffers()):
            self._known[self._identity(tensor)] = None
        for name, module in network.named_modules():
            module.register_forward_pre_hook(self._enter(name), prepend=True)
            module.register_forward_hook(self._leave)

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._stack.append(name)

    def _leave(self, *_: Any) -> None:
        self._stack.pop()

    def _identity(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._kept.append(storage)
        return storage._cdata

    def begin(self, image: Tensor) -> None:
        """Note the image, which is there before the first operator."""
        found = _Tensor(("input",), tuple(image.shape), 0, 0)
        self._run.tensors.append(found)
        self._known[self._identity(image)] = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        read = list(_tensors([args, kwargs or {}]))
        ids = [self._identity(x) for x in read]
        known = [self._known.get(x) for x in ids]
        position = len(self._run.places)
        used = [x for x in known if x is not None]
        only_weights = bool(read) and not used
        for tensor in used:
            tensor.died = position
        written = [x for x in _tensors([output]) if x.numel()]
        new = [x for x in written if self._identity(x) not in self._known]
        if only_weights:
            for tensor in new:
                self._known[self._identity(tensor)] = None
            return output
        name, condition = self._place()
        self._run.places.append((name, condition))
        for tensor in new:
            key: tuple[Any, ...] = (name, condition, self._count((name, condition)))
            if torch.Tag.pointwise in func.tags:
                # Perhaps over an input: known when all that read it are.
                key = (*key, "over")
            made = _Tensor(key, tuple(tensor.shape), position, position)
            self._run.tensors.append(made)
            self._known[self._identity(tensor)] = made
            if torch.Tag.pointwise in func.tags:
                self._writes.append((made, used))
        return output

    def _place(self) -> tuple[str, Condition]:
        """Return the layer, and the choices of the units around it."""
        name = self._stack[-1]
        around = [x for x in self._units if f"{name}.".startswith(f"{x}.")]
        labels = dict.fromkeys(self._units[x] for x in around)
        return name, tuple((label, self._run.path[label]) for label in labels)

    def _count(self, key: Any) -> int:
        self._counts[key] = self._counts.get(key, 0) + 1
        return self._counts[key]

    def end(self, output: Any) -> _RecordedRun:
        """Note that the output is needed to the end, and let results take the place of inputs."""
        for tensor in _tensors([output]):
            if (found := self._known.get(self._identity(tensor))) is not None:
                found.died = len(self._run.places)
        merged: dict[int, _Tensor] = {}
        gone = set()
        for made, used in self._writes:
            for given in used:
                given = merged.get(id(given), given)
                size = math.prod(given.shape)
                if given.died == made.born and size == math.prod(made.shape):
                    given.died = made.died
                    merged[id(made)] = given
                    gone.add(id(made))
                    break
        self._run.tensors = [x for x in self._run.tensors if id(x) not in gone]
        return self._run


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple | dict):
            yield from _tensors(value)


class _TensorSizes:
    """Which choices decide the sizes of tensors.

    Parameters
    ----------
    space
        Labels and their choices.
    runs
        Of some paths.

    Raises
    ------
    CostError
        A size depends on several choices at once.
    """

    def __init__(self, space: PathSpace, runs: Sequence[_RecordedRun]):
        self._space = space
        self._seen: dict[Any, list[tuple[Path, tuple[int, ...]]]] = {}
        for run in runs:
            for tensor in run.tensors:
                self._seen.setdefault(tensor.key, []).append((run.path, tensor.shape))
        self.dimensions: dict[Any, Dimensions] = {}
        self._sizes: dict[Any, Size] = {}
        whole: dict[str, list[dict[Choice, int]]] = {}
        partial: list[tuple[Any, str, dict[Choice, int]]] = []
        for key, seen in self._seen.items():
            self._sizes[key] = tuple(self._decide(key, axis) for axis in range(len(seen[0][1])))
            for axis, label in enumerate(self._sizes[key]):
                if isinstance(label, str):
                    values = {path[label]: shape[axis] for path, shape in seen}
                    is_whole = len(values) == len(space[label])
                    if is_whole:
                        whole.setdefault(label, []).append(values)
                        self.dimensions[key, axis] = {label: values}
                    else:
                        partial.append(((key, axis), label, values))
        self.are_complete = True
        for place, label, values in partial:
            completed = _completed(values, whole.get(label, []))
            self.are_complete &= completed is not None
            self.dimensions[place] = {label: completed or values}

    def of(self, tensor: _Tensor) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], int]:
        """Return the size of a tensor: labels with the numbers of their choices, and a factor."""
        factor, parts = 1, []
        for axis, size in enumerate(self._sizes[tensor.key]):
            if isinstance(size, str):
                values = self.dimensions[tensor.key, axis][size]
                numbers = tuple(values.get(x, 0) for x in self._space[size])
                parts.append((size, numbers))
            else:
                factor *= size
        return tuple(sorted(parts)), factor

    def _decide(self, key: Any, axis: int) -> Any:
        """Return the number of an axis, or the label whose choice decides it."""
        seen = self._seen[key]
        numbers = {shape[axis] for _, shape in seen}
        if len(numbers) == 1:
            return numbers.pop()
        for label in self._space.labels:
            values: dict[Choice, int] = {}
            if all(values.setdefault(p[label], s[axis]) == s[axis] for p, s in seen):
                return label
        raise CostError(
            f"layer '{key[0]}': the size of its output depends on several choices at once, so that "
            "its memory cannot be tabulated."
        )


def _completed(
    values: Mapping[Choice, int], whole: Sequence[Mapping[Choice, int]]
) -> dict[Choice, int] | None:
    """Return numbers for all choices, of which some are known: multiples of those elsewhere."""
    for other in whole:
        ratios = {values[x] / other[x] for x in values}
        if len(ratios) == 1:
            ratio = ratios.pop()
            return {x: round(number * ratio) for x, number in other.items()}
    return None


def _expand(
    runs: Sequence[_RecordedRun], sizes: _TensorSizes, space: PathSpace
) -> list[tuple[Condition, int]]:
    """Return what operators need for every combination of the choices that decide it."""
    sums = {
        (run.places[position][1], tuple(sorted(sizes.of(x) for x in needed)))
        for run in runs
        for position, needed in run.needs()
    }
    found: dict[Condition, int] = {}
    for condition, terms in sums:
        made = dict(condition)
        labels = sorted({label for parts, _ in terms for label, _ in parts} - made.keys())
        if math.prod(len(space[x]) for x in labels) > MOST_COMBINATIONS:
            raise CostError(
                f"what activations take depends on more than {MOST_COMBINATIONS} combinations of "
                f"{', '.join(labels)}, which cannot be tabulated."
            )
        for combination in itertools.product(*(space[x] for x in labels)):
            chosen = {**made, **dict(zip(labels, combination, strict=True))}
            total = 0
            for parts, factor in terms:
                for label, numbers in parts:
                    factor *= numbers[list(space[label]).index(chosen[label])]
                total += factor
            whole = tuple(sorted(chosen.items(), key=lambda pair: space.labels.index(pair[0])))
            found[whole] = max(found.get(whole, 0), VALUE_BYTES * total)
    return list(found.items())


def _check(found: Sequence[tuple[Condition, int]], run: _RecordedRun) -> None:
    """Compare with the run of another path. Raises CostError."""
    path = run.path
    table = max(cost for condition, cost in found if all(path[x] == c for x, c in condition))
    if table != run.peak():
        raise CostError(
            f"activations of a path take {run.peak():,} bytes, and {table:,} by the choices of its "
            "units one by one: what a unit needs depends on the choices of others. Limit another "
            "metric, or fix the units that may be left out."
        )
