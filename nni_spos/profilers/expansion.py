"""Calls of layers whose arguments are choices: those of every path, from those of a few."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nni_spos.errors import CostError
from nni_spos.mutables import SlicedOperation
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import Choice
from nni_spos.profilers.products import Product, ProductCounter
from nni_spos.profilers.recorder import LayerCall, Shape

Assignment = dict[str, Choice]
"""Choices of the labels that arguments of layers depend on."""


class BuiltLayer(NamedTuple):
    """The layer of a path, the shape of its output, and what it computes."""

    module: nn.Module
    output_shape: Shape
    products: tuple[Product, ...]


class Builder:
    """Builds the layers of paths, those that are alike once."""

    def __init__(self) -> None:
        self._built: dict[tuple[type[nn.Module], str, Shape], BuiltLayer] = {}
        self._counter = ProductCounter()

    def __call__(
        self, operation: SlicedOperation, sample: Assignment, input_shape: Shape
    ) -> BuiltLayer:
        """Return the layer of a path."""
        key = (operation.plain, str(operation.part_at(sample).arguments), input_shape)
        if key not in self._built:
            layer = operation.build_plain(sample, "meta")
            use_stand_in(layer, "meta")
            self._counter.products = []
            output = self._counter.run(layer, torch.empty(input_shape, device="meta"))
            products = tuple(self._counter.products)
            self._built[key] = BuiltLayer(layer, tuple(output.shape), products)
        return self._built[key]


def use_stand_in(layer: Any, device: str) -> None:
    """Replace what changes no shape, and takes milliseconds without data."""
    if isinstance(layer, _BatchNorm):
        compute = layer.forward if device == "cpu" else _same
        layer.forward = functools.partial(_check_channels, layer, compute)
    elif isinstance(layer, Quantized):
        layer.quantize = lambda x, learned, bits: x  # type: ignore[method-assign]


def _same(x: Tensor) -> Tensor:
    return x


def _check_channels(norm: _BatchNorm, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Stands in for the forward of a BatchNorm."""
    channels = norm.num_features
    if isinstance(norm, SlicedOperation):
        channels = norm.part.arguments["num_features"]
    if x.shape[1] != channels:
        raise RuntimeError(f"a BatchNorm of {channels} channels got {x.shape[1]}")
    return compute(x)


def assignments_of(operations: Iterable[SlicedOperation]) -> list[Assignment]:
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
    # Code that compares shapes sees equal ones only where labels make the same choice.
    alike = [{x: values[position] for x, values in choices.items()} for position in (0, -1)]
    return made + [assignment for assignment in alike if assignment not in made]


def expand_calls(
    operation: SlicedOperation,
    observed: Sequence[LayerCall],
    assignments: Sequence[Assignment],
    build: Builder,
) -> Iterator[LayerCall]:
    """Yield a call for every combination of a layer's choices, from its calls for a few.

    Raises
    ------
    CostError
        The shapes that follow from one call are not those of the others, or its hooks compute
        products.
    """
    base = observed[0]
    if own := [product for call in observed for product in call.products]:
        raise CostError(
            f"layer '{base.name}': its hooks compute {own[0].place}, which cannot be counted by "
            "choice. Compute it in a module of its own."
        )
    samples = [{x: assignment[x] for x in operation.labels} for assignment in assignments]
    for sample in operation.samples():
        condition = dict(base.condition)
        if any(condition.get(label, choice) != choice for label, choice in sample.items()):
            continue  # a unit further out that has the same label decided otherwise
        input_shape = operation.resize(base.input_shape, sample)
        layer, output_shape, products = build(operation, sample, input_shape)
        for call, other in zip(observed, samples, strict=True):
            if other != sample:
                continue
            if (call.input_shape, call.output_shape) != (input_shape, output_shape):
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
            products,
        )
