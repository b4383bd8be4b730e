"""Hooks on the layers of a space that record their calls and what PyTorch computes in them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import LayerChoice
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nni_spos.errors import CostError
from nni_spos.mutables import SlicedOperation
from nni_spos.path import Choice
from nni_spos.profilers.macs import has_formula, is_registered
from nni_spos.profilers.products import ProductCounter, Products

Condition = tuple[tuple[str, Choice], ...]
"""Label and choice of every choice unit that a layer lies in, outermost first, and of the choices
that its arguments depend on."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer.

    Parameters
    ----------
    name
        Dotted name in the model space.
    module
        The layer, on the meta device unless values were needed; of a layer whose arguments are
        choices, its form for some.
    input_shape, output_shape
        Of the first tensor given and returned, with the batch dimension (1); () without one.
    condition
        When the layer is part of a path.
    products
        What PyTorch computed in it, sub-layers that are layers themselves apart.
    varies
        Whether the shapes are others where other choices are made elsewhere.
    """

    name: str
    module: nn.Module
    input_shape: Shape
    output_shape: Shape
    condition: Condition
    products: Products
    varies: bool = False


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

    products: Products
    is_whole: bool


class Recorder:
    """Records the calls of a space's layers while it runs every choice of its units.

    Parameters
    ----------
    space
        A copy, in its weight-sharing form; hooks are put on its layers.
    units
        Its choice units.
    """

    def __init__(self, space: nn.Module, units: Iterable[LayerChoice]):
        self.calls: list[LayerCall] = []
        self.counter = ProductCounter()
        self.outside = Products()
        self._condition: dict[str, Choice] = {}
        self._frames: list[_Frame] = []
        units = list(units)
        for unit in units:
            unit.forward = functools.partial(self._run_choices, unit)
        for name, module in space.named_modules():
            if module not in units:
                self._observe(name, module)

    def begin(self) -> None:
        """Forget what was recorded."""
        self.calls = []
        self._condition = {}
        self._frames = [_Frame(Products(), is_whole=False)]
        self.outside = self.counter.current = self._frames[0].products

    def _observe(self, name: str, module: nn.Module) -> None:
        for key, hook in module._forward_pre_hooks.items():
            if isinstance(hook, WeightNorm | SpectralNorm):  # PyTorch's older ones
                module._forward_pre_hooks[key] = functools.partial(self._ignoring, hook)
        if isinstance(module, ParametrizationList):
            module.forward = functools.partial(self._ignoring, module.forward)
            return
        is_whole = not isinstance(module, SlicedOperation) and is_registered(module)
        if is_whole:
            _check_whole(name, module)
        if is_whole or _is_layer(module):
            enter = functools.partial(self._enter, is_whole)
            # Before the module's own hooks, so that what these compute is seen in the module.
            module.register_forward_pre_hook(enter, prepend=True)
            record = functools.partial(self._leave, name)
            module.register_forward_hook(record, with_kwargs=True)

    def _enter(self, is_whole: bool, *_: Any) -> None:
        around = self._frames[-1]
        frame = around if around.is_whole else _Frame(Products(), is_whole)
        self._frames.append(frame)
        self.counter.current = frame.products

    def _leave(
        self, name: str, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any
    ) -> None:
        products = self._pop()
        if not self._frames[-1].is_whole:
            shapes = _first_shape((*inputs, *named.values())), _first_shape(output)
            condition = tuple(self._condition.items())
            self.calls.append(LayerCall(name, module, *shapes, condition, products))

    def _pop(self) -> Products:
        products = self._frames.pop().products
        self.counter.current = self._frames[-1].products
        return products

    def _ignoring(self, function: Any, *inputs: Any) -> Any:
        """Compute a weight from others, which a network does once and not for every image."""
        self._frames.append(_Frame(Products(), is_whole=True))
        self.counter.current = self._frames[-1].products
        try:
            return function(*inputs)
        finally:
            self._pop()

    @contextmanager
    def _choosing(self, label: str, choice: Choice) -> Iterator[None]:
        self._condition[label] = choice
        try:
            yield
        finally:
            del self._condition[label]

    def _run_choices(self, unit: LayerChoice, *inputs: Any, **named: Any) -> Any:
        """Stands in for the forward of a LayerChoice: runs each candidate in turn."""
        if unit.label in self._condition:  # the same label further out: decided already
            return unit[self._condition[unit.label]](*inputs, **named)
        outputs = {}
        for choice in unit.names:
            with self._choosing(unit.label, choice):
                outputs[choice] = unit[choice](*inputs, **named)
        shapes = {choice: _shapes(output) for choice, output in outputs.items()}
        if any(shape != shapes[unit.names[0]] for shape in shapes.values()):
            raise CostError(f"unit '{unit.label}': its choices have different outputs: {shapes}.")
        return outputs[unit.names[0]]


def _is_layer(module: nn.Module) -> bool:
    """Whether a module costs something itself; what only holds others does not."""
    inside = [name for name, _ in module.named_children() if name != "parametrizations"]
    if isinstance(module, SlicedOperation) or not inside:
        return True
    return not isinstance(module, nn.Sequential) and has_formula(module)


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
