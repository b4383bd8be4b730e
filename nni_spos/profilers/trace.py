"""Run every choice of a model space once, without data, and record the layers' shapes."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from nni_spos.errors import CostError
from nni_spos.mutables import SlicedOperation, share_weights, sliced_operations
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Choice

Condition = tuple[tuple[str, Choice], ...]
"""Label and choice of every choice unit that a layer lies in, outermost first, and of the choices
that its arguments depend on."""
Shape = tuple[int, ...]
Assignment = dict[str, Choice]
"""Choices of the labels that arguments of layers depend on."""


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer without sub-layers.

    Parameters
    ----------
    name
        Dotted name in the model space.
    module
        The layer, on the meta device; of a layer whose arguments are choices, its form for some.
    input_shape, output_shape
        Of the first tensor given and returned, with the batch dimension (1); () without one.
    condition
        When the layer is part of a path.
    varies
        Whether the shapes are others where other choices are made elsewhere.
    """

    name: str
    module: nn.Module
    input_shape: Shape
    output_shape: Shape
    condition: Condition
    varies: bool = False


@dataclass(frozen=True)
class Trace:
    """Every layer call of a space.

    Parameters
    ----------
    calls
        In the order in which they were made; of layers whose arguments are choices, one for
        every combination of these.
    counted_calls, counted_macs
        The calls of one run, and the multiply-adds that PyTorch itself counted in it.
    space
        The copy that was run: on the meta device, layers with choices as arguments in their
        weight-sharing form.
    """

    calls: tuple[LayerCall, ...]
    counted_calls: tuple[LayerCall, ...]
    counted_macs: int
    space: ModelSpace


class _Builder:
    """Builds the layers of paths, those that are alike once."""

    def __init__(self) -> None:
        self._built: dict[tuple[type[nn.Module], str, Shape], tuple[nn.Module, Shape]] = {}

    def __call__(
        self, operation: SlicedOperation, sample: Assignment, input_shape: Shape
    ) -> tuple[nn.Module, Shape]:
        """Return the layer of a path and the shape of its output."""
        key = (operation.plain, str(operation.part_at(sample).arguments), input_shape)
        if key not in self._built:
            layer = operation.build_plain(sample, "meta")
            _use_stand_in(layer)
            output = layer(torch.empty(input_shape, device="meta"))
            self._built[key] = layer, tuple(output.shape)
        return self._built[key]


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
        What other mutables are, for the message; layers that share weights among the choices of
        their arguments are none.

    Raises
    ------
    CostError
        There is another mutable.
    """
    units = []
    for name, module in space.named_modules():
        if isinstance(module, LayerChoice):
            units.append(module)
        elif isinstance(module, SlicedOperation):
            continue
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
        A module's choices cannot be traced, candidates of a unit differ in their output, the
        size of a layer's input depends on choices that are not its own, or the images do not fit
        the network.
    """
    with torch.device("meta"):
        space = share_weights(copy.deepcopy(space).to("meta")).eval()
    tracer = _Tracer()
    units = layer_choices(space, "its costs cannot be traced yet.")
    for unit in units:
        unit.forward = functools.partial(tracer.run_choices, unit)
    for name, module in space.named_modules():
        _use_stand_in(module)
        is_layer = isinstance(module, SlicedOperation) or not any(True for _ in module.children())
        if is_layer and module not in units:
            hook = functools.partial(tracer.record, name)
            module.register_forward_hook(hook, with_kwargs=True)
    operations = dict(sliced_operations(space))
    assignments = _assignments(operations.values())
    run = functools.partial(_run, space, tracer, operations.values(), input_shape)
    with FlopCounterMode(display=False) as counter:
        runs = [run(assignments[0])]
    runs += [run(assignment) for assignment in assignments[1:]]
    if len({tuple(call.name for call in run) for run in runs}) > 1:
        raise CostError("the space calls other layers for other choices, which cannot be counted.")
    calls: list[LayerCall] = []
    counted: list[LayerCall] = []
    build = _Builder()
    for observed in zip(*runs, strict=True):
        operation = operations.get(observed[0].name)
        if operation is None:
            shapes = {(call.input_shape, call.output_shape) for call in observed}
            calls.append(dataclasses.replace(observed[0], varies=len(shapes) > 1))
            counted.append(observed[0])
        else:
            calls += _expand(operation, observed, assignments, build)
            layer, _ = build(operation, assignments[0], observed[0].input_shape)
            counted.append(dataclasses.replace(observed[0], module=layer))
    return Trace(tuple(calls), tuple(counted), counter.get_total_flops() // 2, space)


def _use_stand_in(layer: Any) -> None:
    """Replace what changes no shape, and takes milliseconds without data."""
    if isinstance(layer, _BatchNorm):
        layer.forward = functools.partial(_keep, layer)
    elif isinstance(layer, Quantized):
        layer.quantize = lambda x, clip, bits: x  # type: ignore[method-assign]


def _keep(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Stands in for the forward of a BatchNorm."""
    channels = norm.num_features
    if isinstance(norm, SlicedOperation):
        channels = norm.part.arguments["num_features"]
    if x.shape[1] != channels:
        raise RuntimeError(f"a BatchNorm of {channels} channels got {x.shape[1]}")
    return x


def _run(
    space: ModelSpace,
    tracer: _Tracer,
    operations: Iterable[SlicedOperation],
    input_shape: Sequence[int],
    assignment: Assignment,
) -> list[LayerCall]:
    """Return the calls for one assignment."""
    tracer.calls = []
    for operation in operations:
        operation.resample(assignment)
    image = torch.empty(1, *input_shape, device="meta")
    try:
        with torch.no_grad():
            space(image)
    except RuntimeError as problem:
        raise CostError(
            f"images of shape {tuple(input_shape)} do not fit the space ({problem})."
        ) from None
    return tracer.calls


def _assignments(operations: Iterable[SlicedOperation]) -> list[Assignment]:
    """Return assignments in which every label makes each of its choices, and no two stay alike.

    In the first ones every label moves on by one choice at a time, label i being i choices ahead.
    Two labels with equally many choices may go together in all of these, not so in the rest,
    which follow the further digits of i.
    """
    choices: dict[str, list[Choice]] = {}
    for operation in operations:
        for sample in operation.samples():
            for label, choice in sample.items():
                if choice not in choices.setdefault(label, []):
                    choices[label].append(choice)
    most = max(map(len, choices.values()), default=1)
    made = [
        {x: values[(i + ahead) % len(values)] for i, (x, values) in enumerate(choices.items())}
        for ahead in range(most)
    ]
    step = least = min((len(v) for v in choices.values() if len(v) > 1), default=2)
    while step < len(choices):
        made.append({x: v[i // step % len(v)] for i, (x, v) in enumerate(choices.items())})
        step *= least
    return made


def _expand(
    operation: SlicedOperation,
    observed: Sequence[LayerCall],
    assignments: Sequence[Assignment],
    build: _Builder,
) -> Iterator[LayerCall]:
    """Yield a call for every combination of a layer's choices, from its calls for a few.

    Raises
    ------
    CostError
        The shapes that follow from one call are not those of the others.
    """
    base = observed[0]
    samples = [{x: assignment[x] for x in operation.labels} for assignment in assignments]
    for sample in operation.samples():
        condition = dict(base.condition)
        if any(condition.get(label, choice) != choice for label, choice in sample.items()):
            continue  # a unit further out that has the same label decided otherwise
        input_shape = operation.resize(base.input_shape, sample)
        layer, output_shape = build(operation, sample, input_shape)
        for call, other in zip(observed, samples, strict=True):
            if other == sample and (call.input_shape, call.output_shape) != (
                input_shape,
                output_shape,
            ):
                raise CostError(
                    f"layer '{base.name}': the size of its input, {call.input_shape} or "
                    f"{input_shape}, depends on choices other than its own "
                    f"({', '.join(operation.labels) or 'it has none'}), so that it cannot be "
                    "counted by choice."
                )
        yield LayerCall(
            base.name,
            layer,
            input_shape,
            output_shape,
            tuple((condition | sample).items()),
        )
