"""Run every choice of a model space once, without data, and record the layers' shapes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nni_spos.errors import CostError
from nni_spos.path import Choice

Condition = tuple[tuple[str, Choice], ...]
"""Label and choice of every choice unit that a layer lies in, outermost first."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer without sub-layers.

    Parameters
    ----------
    name
        Dotted name in the model space.
    module
        The layer, on the meta device.
    input_shape, output_shape
        Of the first tensor given and returned, with the batch dimension (1); () without one.
    condition
        When the layer is part of a path.
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    condition: Condition


@dataclass(frozen=True)
class Trace:
    """Every layer call of a space, and the multiply-adds that PyTorch itself counted."""

    calls: tuple[LayerCall, ...]
    counted_macs: int


class _Tracer:
    def __init__(self) -> None:
        self.calls: list[LayerCall] = []
        self.condition: dict[str, Choice] = {}

    @contextmanager
    def choosing(self, label: str, choice: Choice) -> Iterator[None]:
        self.condition[label] = choice
        try:
            yield
        finally:
            del self.condition[label]

    def run_choices(self, unit: LayerChoice, *inputs: Any, **named: Any) -> Any:
        """Stands in for the forward of a LayerChoice: runs each candidate in turn."""
        if unit.label in self.condition:  # the same label further out: decided already
            return unit[self.condition[unit.label]](*inputs, **named)
        outputs = {}
        for choice in unit.names:
            with self.choosing(unit.label, choice):
                outputs[choice] = unit[choice](*inputs, **named)
        shapes = {choice: _shapes(output) for choice, output in outputs.items()}
        if any(shape != shapes[unit.names[0]] for shape in shapes.values()):
            raise CostError(f"unit '{unit.label}': its choices have different outputs: {shapes}.")
        return outputs[unit.names[0]]

    def record(
        self, name: str, module: nn.Module, inputs: Any, named: dict[str, Any], output: Any
    ) -> None:
        shapes = _first_shape((*inputs, *named.values())), _first_shape(output)
        self.calls.append(LayerCall(name, module, *shapes, tuple(self.condition.items())))


def _shapes(value: Any) -> Any:
    """Shape of a tensor, or the shapes of several in a tuple or list."""
    if isinstance(value, tuple | list):
        return tuple(_shapes(item) for item in value)
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__


def _first_shape(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, tuple | list) else (value,)
    return next((tuple(item.shape) for item in items if isinstance(item, Tensor)), ())


def layer_choices(space: ModelSpace, problem: str) -> list[LayerChoice]:
    """Return all LayerChoice units of a space.

    Parameters
    ----------
    space
        A model space, mutated to a supernet or not.
    problem
        What other mutables are, for the message.

    Raises
    ------
    CostError
        There is another mutable.
    """
    units = []
    for name, module in space.named_modules():
        if isinstance(module, LayerChoice):
            units.append(module)
        elif isinstance(module, MutableModule) and module.mutables:
            raise CostError(f"'{name or 'space'}' ({type(module).__name__}): {problem}")
    return units


def trace_space(space: ModelSpace, input_shape: Sequence[int]) -> Trace:
    """Record every layer call of every choice of a space.

    Parameters
    ----------
    space
        A model space, mutated to a supernet or not; it is copied, not changed.
    input_shape
        Of one image: (channels, height, width).

    Raises
    ------
    CostError
        A module's choices cannot be traced, candidates of a unit differ in their output, or the
        images do not fit the network.
    """
    space = copy.deepcopy(space).to("meta").eval()
    tracer = _Tracer()
    units = layer_choices(space, "its costs cannot be traced yet.")
    for unit in units:
        unit.forward = functools.partial(tracer.run_choices, unit)
    for name, module in space.named_modules():
        if module not in units and not any(True for _ in module.children()):
            hook = functools.partial(tracer.record, name)
            module.register_forward_hook(hook, with_kwargs=True)
    image = torch.empty(1, *input_shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            space(image)
        except RuntimeError as problem:
            raise CostError(
                f"images of shape {tuple(input_shape)} do not fit the space ({problem})."
            ) from None
    return Trace(tuple(tracer.calls), counter.get_total_flops() // 2)
