"""Score many paths in one pass over the images, sharing what they have in common.

The paths are walked as a prefix tree. Two paths that make the same choices up to some unit have
the same activations there, in scoring as in recalibration, so these are computed once per batch.
While the supernet runs on a path, its parts (see `nni_spos.scoring.parts`) return what the path
before left, as far as the two agree; only outputs along the current branch are kept.

What decides whether an output can be shared are the labels of all parts that were called before
it. So this needs no assumption about what a network does between its parts. What it does need is
observed while it runs, and where it does not hold `NotShareable` says why: all paths call the same
parts in the same order, units and norms run inside of a part that has their label, a norm runs once
a pass, and neither outputs, images nor modules are changed on the way.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from nni.nas.oneshot.pytorch.supermodule.operation import MixedOperation
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves

from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.mutables import SlicedOperation
from nni_spos.path import Path
from nni_spos.scoring.norms import affine_of, tracks_statistics
from nni_spos.scoring.parts import SupernetPart, find_parts, own_labels
from nni_spos.scoring.prefix_tree import Node, PrefixTree
from nni_spos.scoring.recalibration import place_images
from nni_spos.scoring.scoring_format import Batches
from nni_spos.scoring.side_effects import SideEffects, kept_state

Visitor = Callable[[int, Any, Tensor], None]
"""Takes the number of a path, its outputs and targets, each with a row for each image.

While statistics are recalibrated there are no outputs, and it gets None: nothing is computed behind
the last BatchNorm.
"""


class Statistics(enum.Enum):
    """Which statistics BatchNorm runs on."""

    RECALIBRATED = "recalibrated"
    """Those of the batch, which are averaged in the tree."""
    OF_TREE = "of the tree"
    """Those that were averaged in the tree."""
    OF_SUPERNET = "of the supernet"
    """Those that the supernet's training left."""


class NotShareable(Exception):
    """Paths cannot share activations in this network; the text says why."""


class _Enough(BaseException):
    """Ends a pass behind its last BatchNorm; no error, which code of the user's may catch."""


class Reserve:
    """Small tensors that stay, cut from large ones.

    Each by itself would lie between activations that come and go, and the memory of these would be
    in pieces: all paths of a large tree took 8 GB so, and 1 GB this way.
    """

    SIZE = 2**20

    def __init__(self) -> None:
        self._rest = torch.empty(0)

    def take(self, size: int, device: torch.device) -> Tensor:
        """Return a tensor of shape (size,) with anything in it."""
        if size > len(self._rest) or self._rest.device != device:
            self._rest = torch.empty(max(size, self.SIZE), device=device)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class SharedRun:
    """A supernet that runs on one path after another; made by `sharing`.

    Parameters
    ----------
    supernet
        In evaluation mode.
    parts
        Its parts.
    channels_last
        Memory format of the images.
    """

    def __init__(self, supernet: ModelSpace, parts: Sequence[SupernetPart], channels_last: bool):
        self._supernet = supernet
        self._channels_last = channels_last
        self._units = {part.name: _units(part.module) for part in parts}
        self._path: Path = {}
        self._called: list[SupernetPart] = []
        self._expected: list[SupernetPart] = []
        self._kept: list[tuple[Any, list[tuple[Tensor, int]]]] = []
        self._num_kept = 0
        self._nodes: list[Node] | None = None
        self._node: Node | None = None
        self._inside: SupernetPart | None = None
        self._normed: set[int] = set()
        self._momentum = 1.0  # of recalibration
        self._num_needed = 0  # parts up to the last BatchNorm
        self._reserve = Reserve()
        self._statistics = Statistics.OF_SUPERNET

    def trace(self, path: Path, images: Tensor) -> list[SupernetPart]:
        """Run one path, and return the parts in the order of their calls."""
        self._path, self._nodes, self._called, self._kept, self._num_kept = path, None, [], [], 0
        self._num_needed = 0
        self._supernet(place_images(images, self._supernet, self._channels_last))
        self._expected = self._called
        return self._expected

    def walk(
        self,
        tree: PrefixTree,
        paths: Sequence[Path],
        batches: Batches,
        statistics: Statistics,
        visit: Visitor,
    ) -> int:
        """Run all paths on every batch, and return the number of images.

        Parameters
        ----------
        tree
            Of the paths; its nodes hold the BatchNorm statistics.
        paths
            Label to choice.
        batches
            Images of shape (N, C, H, W) and targets.
        statistics
            Which ones BatchNorm runs on.
        visit
            Called for every path and batch.

        Raises
        ------
        NotShareable
            Parts are called in another order than for the first path, or outputs were changed.
        """
        num_images = 0
        self._statistics = statistics
        self._num_needed = 0
        if statistics is Statistics.RECALIBRATED:
            _refuse_repeated_norms(self._expected)
            self._num_needed = _num_up_to_norms(self._expected)
        for number, (images, targets) in enumerate(batches):
            self._momentum = 1.0 / (number + 1)
            placed = place_images(images, self._supernet, self._channels_last)
            version = placed._version
            effects = SideEffects(self._supernet) if number == 0 else None
            targets = targets.to(placed.device)
            self._kept = []
            for position, index in enumerate(tree.order):
                self._path, self._nodes = paths[index], tree.nodes[position]
                del self._kept[tree.shared[position] :]
                self._num_kept = tree.shared[position + 1]
                self._called = []
                output = self._run(placed)
                if len(self._called) < (self._num_needed or len(self._expected)):
                    raise NotShareable("its layers are called in another order on some paths")
                if placed._version != version:
                    raise NotShareable("the images are changed in place")
                if effects is not None and (found := effects.find()):
                    raise NotShareable(found)
                visit(index, output, targets)
            num_images += len(images)
        return num_images

    def _run(self, images: Tensor) -> Any:
        """Return what the current path returns; None if only its statistics are wanted."""
        try:
            return self._supernet(images)
        except _Enough:
            return None

    def run_part(
        self, part: SupernetPart, forward: Callable[..., Any], *inputs: Any, **named: Any
    ) -> Any:
        """Stands in for the forward of a part."""
        output = self._output_of(part, forward, *inputs, **named)
        if len(self._called) == self._num_needed:
            raise _Enough
        return output

    def _output_of(
        self, part: SupernetPart, forward: Callable[..., Any], *inputs: Any, **named: Any
    ) -> Any:
        """Return the output of a part, kept from the path before or computed."""
        if self._inside is not None:
            raise NotShareable(f"'{part.name}' is called inside of '{self._inside.name}'")
        call = len(self._called)
        self._called.append(part)
        if self._nodes is not None and self._called[call:] != self._expected[call : call + 1]:
            raise NotShareable("its layers are called in another order on some paths")
        if call < len(self._kept):
            output, versions = self._kept[call]
            if any(tensor._version != version for tensor, version in versions):
                raise NotShareable(f"the output of '{part.name}' is changed in place")
            return output
        self._node = self._nodes[call] if self._nodes is not None else None
        self._normed.clear()
        self._choose(part)
        self._inside = part
        try:
            output = forward(*inputs, **named)
        finally:
            self._inside = None
        if call < self._num_kept:
            self._kept.append((output, _versions(output)))
        return output

    def _choose(self, part: SupernetPart) -> None:
        """Set the path in a part; in a unit only in the layers that the path has."""
        everywhere, by_choice = self._units[part.name]
        set_path(everywhere, self._path)
        if by_choice:
            set_path(by_choice[self._path[part.module.label]], self._path)

    def run_choice(self, unit: LayerChoice, *inputs: Any, **named: Any) -> Any:
        """Stands in for the forward of a unit, mutated or not."""
        self._observe(unit)
        return unit[self._path[unit.label]](*inputs, **named)

    def run_unit(
        self, unit: BaseSuperNetModule, forward: Callable[..., Any], *inputs: Any, **named: Any
    ) -> Any:
        """Stands in for the forward of another module with choices, inside of a part."""
        self._observe(unit)
        return forward(*inputs, **named)

    def _observe(self, unit: nn.Module) -> None:
        """Refuse choices that decide what no part's labels say. Raises NotShareable."""
        part = self._inside
        if part is None or not part.labels.issuperset(own_labels(unit)):
            label = next(own_labels(unit), "?")
            where = "outside of the module that holds it" if part is None else f"by '{part.name}'"
            raise NotShareable(f"the unit of the label '{label}' is called {where}")

    def run_norm(self, norm: _BatchNorm, forward: Callable[..., Tensor], x: Tensor) -> Tensor:
        """Stands in for the forward of a BatchNorm that tracks statistics."""
        if self._nodes is None or self._statistics is Statistics.OF_SUPERNET:
            return forward(x)
        weight, bias = affine_of(norm)
        if self._statistics is Statistics.OF_TREE:
            mean, variance = self._find_statistics(norm)
            return nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, norm.eps)
        if self._inside is None or self._node is None:
            raise NotShareable("a BatchNorm is called outside of the module that holds it")
        if id(norm) in self._normed:
            raise NotShareable(f"a BatchNorm of '{self._inside.name}' is called more than once")
        self._normed.add(id(norm))
        if id(norm) not in self._node.statistics:
            if self._momentum != 1.0:
                raise NotShareable("a BatchNorm is not called for every batch")
            mean, variance = self._reserve.take(2 * x.shape[1], x.device).chunk(2)
            self._node.statistics[id(norm)] = mean.zero_(), variance.fill_(1.0)
        mean, variance = self._node.statistics[id(norm)]
        return nn.functional.batch_norm(
            x, mean, variance, weight, bias, True, self._momentum, norm.eps
        )

    def _find_statistics(self, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
        if self._inside is None or self._node is None:
            raise NotShareable("a BatchNorm is called outside of the module that holds it")
        if id(norm) not in self._node.statistics:
            raise NotShareable("a BatchNorm is not called for every batch")
        return self._node.statistics[id(norm)]


@contextmanager
def sharing(supernet: ModelSpace, channels_last: bool = True) -> Iterator[SharedRun]:
    """Let a supernet run with shared parts; afterwards it is as it was.

    Raises
    ------
    NotShareable
        The network itself has choices, outside of any part, or layers that slice their weights in
        a way of their own.
    """
    with kept_state(supernet), _shared_run(supernet, channels_last) as run:
        yield run


@contextmanager
def _shared_run(supernet: ModelSpace, channels_last: bool) -> Iterator[SharedRun]:
    if any(own_labels(supernet)):
        raise NotShareable("the space itself has choices, outside of its layers")
    for name, module in supernet.named_modules():
        if isinstance(module, MixedOperation) and not isinstance(module, SlicedOperation):
            raise NotShareable(f"'{name}' is a {type(module).__name__}, whose weights NNI slices")
        if "forward" in vars(module):
            raise NotShareable(f"'{name}' has a forward of its own")
        if isinstance(module, _BatchNorm) and type(module).forward not in _NORM_FORWARDS:
            raise NotShareable(f"'{name}' is a {type(module).__name__}, which normalises otherwise")
    parts = find_parts(supernet)
    heads = {id(part.module) for part in parts}
    run = SharedRun(supernet, parts, channels_last)
    modes = {module: module.training for module in supernet.modules()}
    replaced: list[nn.Module] = []
    in_place = [part.module for part in parts if getattr(part.module, "inplace", False)]

    def replace(module: nn.Module, stand_in: Callable[..., Any], *arguments: Any) -> None:
        module.forward = functools.partial(stand_in, *arguments, module.forward)
        replaced.append(module)

    try:
        supernet.eval()
        for module in in_place:
            module.inplace = False  # it would change what the part before keeps
        for module in supernet.modules():
            if isinstance(module, _BatchNorm) and tracks_statistics(module):
                replace(module, run.run_norm, module)
            elif isinstance(module, LayerChoice):
                module.forward = functools.partial(run.run_choice, module)
                replaced.append(module)
            elif isinstance(module, BaseSuperNetModule) and id(module) not in heads:
                replace(module, run.run_unit, module)
        for part in parts:
            replace(part.module, run.run_part, part)
        with torch.no_grad():
            yield run
    finally:
        for module in replaced:
            vars(module).pop("forward", None)
        for module in in_place:
            module.inplace = True
        for module, mode in modes.items():
            module.training = mode


def _units(part: nn.Module) -> tuple[list[Any], Mapping[Any, list[Any]]]:
    """Return the weight-sharing layers of a part; of a unit's choices, by choice."""
    if isinstance(part, LayerChoice):
        return [], {name: choice_units(part[name]) for name in part.names}
    return choice_units(part), {}


def _versions(value: Any) -> list[tuple[Tensor, int]]:
    """Return the tensors of an output, with how often each has been changed in place."""
    if isinstance(value, Tensor):
        return [(value, value._version)]
    return [(leaf, leaf._version) for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _num_up_to_norms(calls: Sequence[SupernetPart]) -> int:
    """Return how many parts are called up to the last one with a BatchNorm; 0 if none has one."""
    numbers = (
        number
        for number, part in enumerate(calls, 1)
        if any(isinstance(x, _BatchNorm) and tracks_statistics(x) for x in part.module.modules())
    )
    return max(numbers, default=0)


def _refuse_repeated_norms(calls: Sequence[SupernetPart]) -> None:
    """Refuse norms that run more than once a pass, and so have one set of statistics for both.

    Raises NotShareable.
    """
    seen: dict[int, str] = {}
    for part in calls:
        for module in part.module.modules():
            if isinstance(module, _BatchNorm) and tracks_statistics(module):
                if id(module) in seen:
                    names = dict.fromkeys((seen[id(module)], part.name))
                    raise NotShareable(
                        f"a BatchNorm of {' and '.join(map(repr, names))} is called more than once"
                    )
                seen[id(module)] = part.name


_NORM_FORWARDS = (_BatchNorm.forward, SlicedOperation.forward)
