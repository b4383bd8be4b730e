"""Hooks on the layers of a space that record their calls and what PyTorch computes in them."""

from __future__ import annotations

import functools
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nni_spos.errors import CostError
from nni_spos.metrics import Condition
from nni_spos.mutables import SlicedOperation
from nni_spos.mutables.repeat import depths_of
from nni_spos.path import Choice
from nni_spos.profilers.dry_run import note_place
from nni_spos.profilers.macs import is_registered
from nni_spos.profilers.products import Product, ProductCounter
from nni_spos.profilers.scripted import ScriptedLayer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCall:
    """One call of a module that has no modules inside, or computes products itself.

    Parameters
    ----------
    name
        Dotted name in the model space; "" for the space itself.
    module
        The module, on the meta device unless values were needed; of a layer whose arguments are
        choices, its form for some.
    input_shape, output_shape
        Of the first tensor given and returned, with the batch dimension (1); () without one.
    condition
        When the layer is part of a path.
    products
        What was computed in it, the modules that it calls apart.
    varies
        Whether shapes or products are others where other choices are made elsewhere.
    products_vary
        Whether products are.
    """

    name: str
    module: nn.Module
    input_shape: Shape
    output_shape: Shape
    condition: Condition
    products: tuple[Product, ...] = ()
    varies: bool = False
    products_vary: bool = False

    @property
    def title(self) -> str:
        """How messages call the module."""
        if not self.name:
            return "the space" if isinstance(self.module, ModelSpace) else "the network"
        scripted = isinstance(self.module, ScriptedLayer)
        kind = f"scripted {self.module.title}" if scripted else type(self.module).__name__
        return f"layer '{self.name}' ({kind})"


@dataclass(frozen=True)
class _Frame:
    """A module that runs.

    Parameters
    ----------
    products
        Where to add what is computed in it.
    is_whole
        Whether what it calls is part of it.
    """

    products: list[Product]
    is_whole: bool


class Recorder:
    """Records the calls of a network's layers; of a space, while it runs every choice of its units.

    Parameters
    ----------
    network
        A copy, a space in its weight-sharing form; hooks are put on its modules.
    units
        Its choice units.
    repeats
        Its blocks whose number may be a choice.
    """

    def __init__(
        self,
        network: nn.Module,
        units: Iterable[LayerChoice] = (),
        repeats: Iterable[Repeat] = (),
    ):
        self.calls: list[LayerCall] = []
        self.counter = ProductCounter()
        self._condition: dict[str, Choice] = {}
        self._frames: list[_Frame] = []
        self._thread = threading.get_ident()
        self._in_threads: list[str] = []
        self._failure: BaseException | None = None
        self._last: SlicedOperation | None = None
        self.assignment: Mapping[str, Choice] = {}
        """Choices that arguments of layers depend on, in the run that is recorded."""
        self.bypassed: dict[str, None] = {}
        """Names of candidates that were called, but not by their unit."""
        units = list(units)
        repeats = list(repeats)
        self._candidates = {id(unit[choice]) for unit in units for choice in unit.names}
        self._candidates |= {id(block) for repeat in repeats for block in repeat.blocks}
        self._due: nn.Module | None = None
        for unit in units:
            unit.forward = functools.partial(self._run_choices, unit)
        for repeat in repeats:
            repeat.forward = functools.partial(self._run_depths, repeat)
        choosing = {id(module) for module in (*units, *repeats)}
        for name, module in network.named_modules():
            if id(module) not in choosing:
                self._observe(name, module)

    def record(self, network: nn.Module, image: Tensor) -> list[LayerCall]:
        """Run the network, and return what it calls.

        Raises
        ------
        CostError
            It calls layers in threads, where what PyTorch computes is not seen.
        """
        self.calls = []
        self._condition = {}
        self._last = None
        # What is computed when the network does not run is nobody's.
        self._frames = [_Frame([], is_whole=False)]
        self.counter.run(network, image)
        if self._in_threads:
            raise CostError(
                f"layer '{self._in_threads[0]}' runs in a thread of its own, where multiply-adds "
                "cannot be counted. Call it in the thread that the network runs in."
            )
        return self.calls

    def _observe(self, name: str, module: nn.Module) -> None:
        for key, hook in module._forward_pre_hooks.items():
            if isinstance(hook, WeightNorm | SpectralNorm):  # PyTorch's older ones
                module._forward_pre_hooks[key] = functools.partial(self._ignoring, hook)
        if isinstance(module, ParametrizationList):
            module.forward = functools.partial(self._ignoring, module.forward)
            return
        if isinstance(module, SlicedOperation):
            # What it computes is known of the layers of paths; what its hooks do is not.
            forward = functools.partial(_uncounted, module.forward)
            module.forward = forward  # type: ignore[method-assign]
        is_whole = not isinstance(module, SlicedOperation) and is_registered(module)
        if is_whole:
            _check_whole(name, module)
        if id(module) in self._candidates:
            module.register_forward_pre_hook(functools.partial(self._expect, name), prepend=True)
        enter = functools.partial(self._enter, name, is_whole)
        # Before the module's own hooks, so that what these compute is seen in the module.
        module.register_forward_pre_hook(enter, prepend=True)
        record = functools.partial(self._leave, name, is_whole or _is_layer(module))
        # Also where it fails, which a network may catch.
        module.register_forward_hook(record, with_kwargs=True, always_call=True)

    def _expect(self, name: str, module: nn.Module, _: Any) -> None:
        if self._due is not module:
            self.bypassed[name] = None
        self._due = None

    def _enter(self, name: str, is_whole: bool, *_: Any) -> None:
        if threading.get_ident() != self._thread:
            self._in_threads.append(name)
            return
        around = self._frames[-1]
        self._push(around if around.is_whole else _Frame([], is_whole))

    def _leave(
        self,
        name: str,
        is_layer: bool,
        module: nn.Module,
        inputs: Any,
        named: dict[str, Any],
        output: Any,
    ) -> None:
        if threading.get_ident() != self._thread:
            return
        products = self._pop()
        failure = sys.exc_info()[1]
        if failure is not None and failure is not self._failure:  # of the innermost module
            self._failure = failure
            shape = _first_shape((*inputs, *named.values()))
            note_place(failure, self._describe(name, module, shape))
        if isinstance(module, SlicedOperation):
            self._last = module
        if not self._frames[-1].is_whole and (is_layer or products):
            shapes = _first_shape((*inputs, *named.values())), _first_shape(output)
            condition = tuple(self._condition.items())
            self.calls.append(LayerCall(name, module, *shapes, condition, tuple(products)))

    def _describe(self, name: str, module: nn.Module, shape: Shape) -> str:
        """Return which layer failed, on what, and the choices that what it gets follows from."""
        sliced = [x for x in (self._last, module) if isinstance(x, SlicedOperation)]
        labels = [label for operation in sliced for label in operation.labels]
        choices = {**{x: self.assignment[x] for x in labels}, **self._condition}
        kind = getattr(module, "plain", type(module)).__name__
        found = f"layer '{name}' ({kind}) gets {shape}" if name else ""
        made = ", ".join(f"'{label}' is {choice!r}" for label, choice in choices.items())
        return ", ".join(filter(None, [found, f"where {made}" if made else ""]))

    def _push(self, frame: _Frame) -> None:
        self._frames.append(frame)
        self.counter.products = frame.products

    def _pop(self) -> list[Product]:
        products = self._frames.pop().products
        self.counter.products = self._frames[-1].products
        return products

    def _ignoring(self, function: Any, *inputs: Any) -> Any:
        """Compute a weight from others, which a network does once and not for every image."""
        self._push(_Frame([], is_whole=True))
        try:
            return function(*inputs)
        finally:
            self._pop()

    @contextmanager
    def _choosing(self, choices: Mapping[str, Choice]) -> Iterator[None]:
        before = self._condition
        self._condition = {**before, **choices}
        try:
            yield
        finally:
            self._condition = before

    def _run_choices(self, unit: LayerChoice, *inputs: Any, **named: Any) -> Any:
        """Stands in for the forward of a LayerChoice: runs each candidate in turn."""
        if unit.label in self._condition:  # the same label further out: decided already
            self._due = unit[self._condition[unit.label]]
            return self._due(*inputs, **named)
        outputs = {}
        for choice in unit.names:
            with self._choosing({unit.label: choice}):
                self._due = unit[choice]
                outputs[choice] = self._due(*inputs, **named)
        shapes = {choice: _shapes(output) for choice, output in outputs.items()}
        if any(shape != shapes[unit.names[0]] for shape in shapes.values()):
            raise CostError(f"unit '{unit.label}': its choices have different outputs: {shapes}.")
        return outputs[unit.names[0]]

    def _run_depths(self, repeat: Repeat, x: Any) -> Any:
        """Stands in for the forward of a Repeat: runs the blocks of each depth in turn."""
        outputs = {}
        for sample, depth in depths_of(repeat, self._condition):
            with self._choosing(sample):
                outputs[depth] = x
                for block in itertools.islice(repeat.blocks, depth):
                    self._due = block
                    outputs[depth] = block(outputs[depth])
        shapes = {depth: _shapes(output) for depth, output in outputs.items()}
        if len(set(shapes.values())) > 1:
            labels = ", ".join(next(depths_of(repeat, {}))[0])
            raise CostError(f"depth '{labels}': the outputs have other shapes: {shapes}.")
        return next(iter(outputs.values()))


def _uncounted(function: Any, *inputs: Any, **named: Any) -> Any:
    with torch._C._DisableTorchDispatch():
        return function(*inputs, **named)


def _is_layer(module: nn.Module) -> bool:
    """Whether a module has no others inside."""
    inside = [name for name, _ in module.named_children() if name != "parametrizations"]
    return isinstance(module, SlicedOperation) or not inside


def _check_whole(name: str, module: nn.Module) -> None:
    """Refuse to count choices as one layer. Raises CostError."""
    for inner in module.modules():
        labels: tuple[str, ...] = ()
        if isinstance(inner, LayerChoice):
            labels = (str.__str__(inner.label),)
        elif isinstance(inner, SlicedOperation):
            labels = inner.labels
        if labels:
            raise CostError(
                f"layer '{name}' ({type(module).__name__}): has a formula for its multiply-adds, "
                f"and choices inside ({', '.join(labels)}), so that it cannot count as one layer. "
                "Give formulas to the layers inside of it instead."
            )


def _shapes(value: Any) -> Any:
    """Shape of a tensor, or the shapes of several in a tuple or list."""
    if isinstance(value, tuple | list):
        return tuple(_shapes(item) for item in value)
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first_shape(value: Any) -> Shape:
    items = value if isinstance(value, tuple | list) else (value,)
    return next((tuple(item.shape) for item in items if isinstance(item, Tensor)), ())
