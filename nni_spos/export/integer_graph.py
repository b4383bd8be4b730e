"""ONNX graphs that compute with integers where PyTorch's exporter wrote rounded floats.

The exporter leaves convolutions and products behind DequantizeLinear, which say what is computed
and let runtimes compute it with floats. Here

- a convolution whose result is only rounded to 8 bits again stays between DequantizeLinear and
  QuantizeLinear, with the BatchNorm and the ReLU between them in its scales: runtimes make one
  integer operator of it, onnxruntime QLinearConv;
- another one becomes ConvInteger, and a product MatMulInteger, whose results are exact, with one
  factor and one summand for each channel, which take in the BatchNorm behind it.

Weights that 4 bits hold are stored in 4 bits. Those of 8 bits are uint8 with the zero point 128,
which is int8 moved up: onnxruntime adds products of uint8 and int8 in 16 bits on processors
without VNNI, where sums overflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_spos.export.base import Array

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

INT4_OPSET = 21
"""The first version of ONNX's operators with whole numbers of 4 bits."""
ZERO = 128
"""Zero point of weights as uint8."""
COARSEST_BIAS = 2e-3
"""Largest step of an integer bias in levels of the result: half of it is how far a value can be off
before it is rounded, and so what share of values get the level beside theirs. With 1e-2, 14 in
10,000 images got another class; with 3e-3 none did, and nothing was slower."""


def finish_quantized(model: onnx.ModelProto, *, folded: bool = True) -> onnx.ModelProto:
    """Return the integer form of what was exported of a prepared network.

    Parameters
    ----------
    model
        What PyTorch's exporter wrote of what `nni_spos.export.integers.prepare_quantized` returned.
        One without DequantizeLinear is returned as it is.
    folded
        Whether each BatchNorm becomes a part of the layer before it.
    """
    import onnx_ir as ir

    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        return model
    found = ir.from_proto(model)
    graph = _Graph(found.graph, found.opset_imports[""], folded=folded)
    for node in list(found.graph):
        if (layer := _read(graph, node)) is not None:
            _make_integer(graph, layer)
    graph.drop_unused()
    return ir.to_proto(found)


@dataclass(frozen=True)
class _QuantizedLayer:
    """A convolution or a product of inputs on levels with integer weights.

    Parameters
    ----------
    node
        Conv or Gemm.
    inputs, input_scale, input_zero
        The rounded inputs and their parameters, as values of the graph.
    scale_of_inputs
        The number behind `input_scale`.
    integers
        Weights, shape (out_channels, ...).
    scale
        Of the weights, shape (out_channels,).
    offset
        What is added to the weights behind their scale; 0 for none.
    bias
        Shape (out_channels,).
    """

    node: ir.Node
    inputs: ir.Value
    input_scale: ir.Value | None
    input_zero: ir.Value | None
    scale_of_inputs: float
    integers: Array
    scale: Array
    offset: float
    bias: Array


@dataclass(frozen=True)
class _Rounding:
    """A QuantizeLinear to 8 bits that alone takes a value.

    Parameters
    ----------
    between
        The ReLU before it, which its lowest level stands for, or nothing.
    scale
        The distance of its levels.
    """

    between: list[ir.Node]
    scale: float


class _Graph:
    """A graph of `onnx_ir`, with what is done to it again and again."""

    def __init__(self, graph: ir.Graph, opset: int, *, folded: bool):
        self.graph = graph
        self.opset = opset
        self.folded = folded
        self._number = 0

    def constant(self, value: Array, about: str, *, is_packed: bool = False) -> ir.Value:
        """Store a value in the file."""
        import onnx_ir as ir

        self._number += 1
        name = f"{about}_{self._number}"
        assert name not in self.graph.initializers
        tensor = ir.tensor(value, dtype=ir.DataType.INT4 if is_packed else None, name=name)
        found = ir.Value(name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype))
        found.const_value = tensor
        self.graph.initializers[name] = found
        return found

    def node(
        self, operator: str, inputs: Sequence[ir.Value | None], attributes: Sequence[Any] = ()
    ) -> ir.Node:
        """Return a node of a standard operator with one output."""
        import onnx_ir as ir

        return ir.Node("", operator, inputs, attributes)

    def packs(self, values: Array) -> bool:
        """Whether integers are stored in 4 bits."""
        return self.opset >= INT4_OPSET and _fit(values, -8, 7)

    def replace(self, old: Sequence[ir.Node], new: Sequence[ir.Node]) -> None:
        """Put nodes in the place of others, whose last result is then theirs."""
        import onnx_ir as ir

        for node in new:
            node.metadata_props.update(old[0].metadata_props)
        ir.convenience.replace_nodes_and_values(
            self.graph, old[-1], old, new, [old[-1].outputs[0]], [new[-1].outputs[0]]
        )

    def drop_unused(self) -> None:
        """Leave out what nothing takes."""
        for node in reversed(list(self.graph)):
            if not any(x.uses() or x.is_graph_output() for x in node.outputs):
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]


def _read(graph: _Graph, node: ir.Node) -> _QuantizedLayer | None:
    """Return the integers behind a node; None if it has none."""
    if node.op_type not in ("Conv", "Gemm"):
        return None
    if node.op_type == "Gemm" and not _is_plain_product(node):
        return None
    inputs, weight, offset = _maker(node.inputs[0]), _maker(node.inputs[1]), 0.0
    if weight is not None and weight.op_type == "Add":
        half = [x for x in map(_number_of, weight.inputs) if x is not None]
        weight, offset = _maker(weight.inputs[0]), float(half[0]) if half else 0.0
    if inputs is None or inputs.op_type != "DequantizeLinear":
        return None
    if weight is None or weight.op_type != "DequantizeLinear":
        return None
    rounded, step = inputs.inputs[0], _number_of(inputs.inputs[1])
    integers, scale = _number_of(weight.inputs[0]), _number_of(weight.inputs[1])
    bias = _number_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(1)
    if integers is None or scale is None or step is None or bias is None or rounded is None:
        return None
    return _QuantizedLayer(
        node,
        rounded,
        inputs.inputs[1],
        inputs.inputs[2],
        float(step),
        integers.astype(np.int64),
        np.broadcast_to(scale, len(integers)).astype(np.float64),
        offset,
        np.broadcast_to(bias, len(integers)).astype(np.float64),
    )


def _is_plain_product(gemm: ir.Node) -> bool:
    """Whether a product is that of a linear layer, whose weights have a row for each output."""
    found = {name: value.value for name, value in gemm.attributes.items()}
    expected = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
    plain = {"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0}
    return {**plain, **found} == expected


def _make_integer(graph: _Graph, layer: _QuantizedLayer) -> None:
    """Let a layer compute with integers, and take in the BatchNorm behind it."""
    old, factor, summand = [layer.node], np.ones(len(layer.scale)), np.zeros(len(layer.scale))
    norm = _only_user(layer.node.outputs[0], "BatchNormalization") if graph.folded else None
    if norm is not None and (found := _affine_of(norm)) is not None:
        old.append(norm)
        factor, summand = found
    factor, summand = layer.scale * factor, layer.bias * factor + summand
    rounding = _rounding_behind(old[-1].outputs[0])
    if rounding is not None and _can_round_itself(graph, layer, factor, rounding):
        values = layer.integers * np.sign(factor).astype(np.int64).reshape(_rows(layer))
        old += rounding.between
        _round_itself(graph, layer, old, values, np.abs(factor), summand)
    else:
        _sum_integers(graph, layer, old, factor, summand)


def _can_round_itself(
    graph: _Graph, layer: _QuantizedLayer, factor: Array, rounding: _Rounding
) -> bool:
    """Whether a convolution whose bias is an integer gives, but for few values, the same levels."""
    if layer.node.op_type != "Conv" or graph.packs(layer.integers) or layer.offset:
        return False
    signed = layer.integers * np.sign(factor).astype(np.int64).reshape(_rows(layer))
    if not factor.all() or not _fit(signed, -ZERO, ZERO - 1):
        return False
    steps = np.abs(factor) * layer.scale_of_inputs
    return bool(steps.max() <= COARSEST_BIAS * rounding.scale)


def _round_itself(
    graph: _Graph,
    layer: _QuantizedLayer,
    old: Sequence[ir.Node],
    values: Array,
    factor: Array,
    summand: Array,
) -> None:
    """Write a convolution between DequantizeLinear and QuantizeLinear, its bias an integer."""
    steps = factor * layer.scale_of_inputs
    whole = np.clip(np.rint(summand / steps), -(2**31) + 1, 2**31 - 1).astype(np.int32)
    axis = _attributes({"axis": 0})
    weight = graph.node(
        "DequantizeLinear",
        [
            graph.constant((values + ZERO).astype(np.uint8), "weight"),
            graph.constant(factor.astype(np.float32), "weight_scale"),
            graph.constant(np.full(len(factor), ZERO, np.uint8), "weight_zero"),
        ],
        axis,
    )
    bias = graph.node(
        "DequantizeLinear",
        [
            graph.constant(whole, "bias"),
            graph.constant(steps.astype(np.float32), "bias_scale"),
        ],
        axis,
    )
    inputs = graph.node("DequantizeLinear", [layer.inputs, layer.input_scale, layer.input_zero])
    conv = graph.node(
        "Conv",
        [inputs.outputs[0], weight.outputs[0], bias.outputs[0]],
        list(layer.node.attributes.values()),
    )
    graph.replace(old, [weight, bias, inputs, conv])


def _sum_integers(
    graph: _Graph, layer: _QuantizedLayer, old: Sequence[ir.Node], factor: Array, summand: Array
) -> None:
    """Write a layer as a sum of products of integers, then a factor and a summand a channel."""
    is_conv = layer.node.op_type == "Conv"
    odd = 2 * layer.integers + 1 if layer.offset else layer.integers
    if layer.offset:
        factor = factor / 2
    new: list[ir.Node] = []
    if _fit(odd, -ZERO, ZERO - 1):
        total = _product(graph, layer, new, layer.integers, is_odd=bool(layer.offset))
    elif _groups(layer.node) == 1:
        # w = 2v + 1, so that the sum of w x is twice the sum of v x, and the sum of x.
        halves = _product(graph, layer, new, layer.integers)
        ones = _product(graph, layer, new, np.ones_like(layer.integers[:1]))
        two = graph.constant(np.array(2, np.int32), "two")
        new.append(graph.node("Mul", [halves, two]))
        new.append(graph.node("Add", [new[-1].outputs[0], ones]))
        total = new[-1].outputs[0]
    else:
        return
    shape = (1, -1, *[1] * (layer.integers.ndim - 2)) if is_conv else (1, -1)
    steps = (factor * layer.scale_of_inputs).astype(np.float32).reshape(shape)
    new.append(graph.node("Cast", [total], _attributes({"to": 1})))
    new.append(graph.node("Mul", [new[-1].outputs[0], graph.constant(steps, "scale")]))
    if summand.any():
        added = graph.constant(summand.astype(np.float32).reshape(shape), "bias")
        new.append(graph.node("Add", [new[-1].outputs[0], added]))
    graph.replace(old, new)


def _product(
    graph: _Graph,
    layer: _QuantizedLayer,
    new: list[ir.Node],
    values: Array,
    *,
    is_odd: bool = False,
) -> ir.Value:
    """Add an integer convolution or product to `new`, and return its result.

    With `is_odd` the weights are 2v + 1 for each of the values v.
    """
    is_conv = layer.node.op_type == "Conv"
    values = values if is_conv else values.T
    operator = "ConvInteger" if is_conv else "MatMulInteger"
    zero = graph.constant(np.array(ZERO, np.uint8), "weight_zero")
    if graph.packs(values):
        stored = graph.constant(values.astype(np.int8), "weight", is_packed=True)
        weight = _unpack(graph, new, stored, is_odd=is_odd)
    else:
        values = 2 * values + 1 if is_odd else values
        weight = graph.constant((values + ZERO).astype(np.uint8), "weight")
    attributes = list(layer.node.attributes.values()) if is_conv else []
    inputs = [layer.inputs, weight, layer.input_zero, zero]
    new.append(graph.node(operator, inputs, attributes))
    return new[-1].outputs[0]


def _unpack(graph: _Graph, new: list[ir.Node], stored: ir.Value, *, is_odd: bool) -> ir.Value:
    """Add what makes uint8 of weights in 4 bits; runtimes do it once, when they load the file."""
    new.append(graph.node("Cast", [stored], _attributes({"to": 6})))
    if is_odd:
        two = graph.constant(np.array(2, np.int32), "two")
        new.append(graph.node("Mul", [new[-1].outputs[0], two]))
    zero = graph.constant(np.array(ZERO + is_odd, np.int32), "zero")
    new.append(graph.node("Add", [new[-1].outputs[0], zero]))
    new.append(graph.node("Cast", [new[-1].outputs[0]], _attributes({"to": 2})))
    return new[-1].outputs[0]


def _rounding_behind(value: ir.Value) -> _Rounding | None:
    """Return how a value is rounded to 8 bits, if that is all that is done with it."""
    relu = _only_user(value, "Relu")
    quantize = _only_user(value if relu is None else relu.outputs[0], "QuantizeLinear")
    if quantize is None or len(quantize.inputs) < 3:
        return None
    scale, zero = (_number_of(x) for x in quantize.inputs[1:3])
    if scale is None or scale.ndim or zero is None or zero.dtype != np.uint8:
        return None
    if relu is not None and zero != 0:
        return None
    return _Rounding([] if relu is None else [relu], float(scale))


def _affine_of(norm: ir.Node) -> tuple[Array, Array] | None:
    """Return factor and summand of each channel of a BatchNorm; None if they are computed."""
    constants = [_number_of(x) for x in norm.inputs[1:5]]
    if any(x is None for x in constants):
        return None
    scale, bias, mean, variance = (x.astype(np.float64) for x in constants if x is not None)
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    factor = scale / np.sqrt(variance + epsilon)
    return factor, bias - mean * factor


def _maker(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _number_of(value: ir.Value | None) -> Array | None:
    """Return the value of an initializer; None for what is computed."""
    if value is None or value.const_value is None:
        return None
    return np.asarray(value.const_value.numpy())


def _only_user(value: ir.Value, operator: str) -> ir.Node | None:
    """Return the node that alone takes a value, if it is of this operator."""
    users = list(value.uses())
    if value.is_graph_output() or len(users) != 1 or users[0][0].op_type != operator:
        return None
    return users[0][0]


def _fit(values: Array, low: int, high: int) -> bool:
    return bool(values.min() >= low and values.max() <= high)


def _groups(node: ir.Node) -> int:
    return node.attributes["group"].as_int() if "group" in node.attributes else 1


def _rows(layer: _QuantizedLayer) -> tuple[int, ...]:
    return (-1, *[1] * (layer.integers.ndim - 1))


def _attributes(values: Mapping[str, int]) -> list[Any]:
    import onnx_ir as ir

    return [ir.AttrInt64(name, value) for name, value in values.items()]
