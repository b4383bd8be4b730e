"""Quantized layers as whole numbers, for ONNX.

`prepare_quantized` puts a layer of standard operators in the place of every quantized layer:
QuantizeLinear and DequantizeLinear around the inputs, DequantizeLinear behind integer weights.
`nni_spos.export.integer_graph` then makes the graph that PyTorch's exporter wrote of it compute
with these integers, and stores those of few bits in 4.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nni_spos.modules.copies import copy_values
from nni_spos.mutables.adoption import HOOKS
from nni_spos.mutables.convolution import convolve
from nni_spos.mutables.quantization import Quantized, QuantizedConv2d, QuantizedLinear
from nni_spos.mutables.quantizer_kinds import Grid, Integers, find_quantizer
from nni_spos.mutables.quantizers import FULL_PRECISION

LEAST_OPSET = 18
INT4_OPSET = 21
"""The first version of ONNX's operators with whole numbers of 4 bits."""
INT4 = (-8, 7)
INT8 = (-128, 127)


def prepare_quantized(network: nn.Module) -> nn.Module:
    """Return a network that is written to ONNX as whole numbers where it is quantized.

    Parameters
    ----------
    network
        Of one path, in evaluation mode; it is not changed.

    Returns
    -------
    A copy that computes the same. Its attribute ``minimal_opset`` is the version of ONNX's
    operators that it needs. A network without quantized layers is returned as it is.
    """
    if not any(isinstance(module, Quantized) for module in network.modules()):
        return network
    if isinstance(network, Quantized):
        prepared: nn.Module = _integer_form(network)
    else:
        prepared = copy_values(network)
        forms: dict[int, nn.Module] = {}  # a layer that is used twice stays one
        for name, module in list(prepared.named_modules(remove_duplicate=False)):
            if isinstance(module, Quantized):
                form = forms.setdefault(id(module), _integer_form(module))
                prepared.set_submodule(name, form)
    layers = [x for x in prepared.modules() if isinstance(x, IntegerLayer)]
    few_bits = any(layer.has_few_bits for layer in layers)
    prepared.minimal_opset = INT4_OPSET if few_bits else LEAST_OPSET
    return prepared.eval()


class IntegerLayer(nn.Module):
    """A quantized layer whose weights are stored as integers.

    Parameters
    ----------
    layer
        It is not changed.
    """

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor
    zero_point: Tensor
    half_step: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: Any):
        super().__init__()
        kind, weight = find_quantizer(layer.quantizer), layer.weight.detach()
        self.has_integers = layer.weight_bits != FULL_PRECISION
        if self.has_integers:
            found = kind.integers(weight, layer.weight_factor, layer.weight_bits)
            self._keep(found, layer.weight_bits)
        else:
            self.register_buffer("weight", weight.clone())
        self.grid: Grid | None = None
        if layer.activation_bits != FULL_PRECISION:
            self.grid = kind.grid(
                getattr(layer, kind.activation_tensor).detach(),
                layer.activation_bits,
                signed=layer.signed,
                initial_clip=layer.initial_clip,
            )
            # Always from 0 up, which every runtime has kernels for.
            self._zero = 128 if self.grid.low < 0 else 0
            self.register_buffer("input_scale", torch.tensor(self.grid.scale))
            self.register_buffer("zero_point", torch.tensor(self._zero, dtype=torch.uint8))
        bias = None if layer.bias is None else layer.bias.detach().clone()
        self.register_buffer("bias", bias)
        for hooks in HOOKS:
            setattr(self, hooks, copy.copy(vars(layer)[hooks]))

    @property
    def has_few_bits(self) -> bool:
        """Whether the weights fit into 4 bits."""
        return self.has_integers and _fits(self.weight, INT4)

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and weights, on their levels."""
        if self.grid is not None:
            x = self._round(x, self.grid)
        if not self.has_integers:
            return x, self.weight
        if torch.compiler.is_compiling():
            scaled = (self.weight, self.weight_scale)
            axis = {"axis": 0} if self.weight_scale.dim() else {}
            weight = _onnx("DequantizeLinear", scaled, axis, torch.float32)
        else:
            scale = self.weight_scale
            if scale.dim():
                scale = scale.view(-1, *[1] * (self.weight.dim() - 1))
            weight = self.weight * scale
        return x, weight if self.half_step is None else weight + self.half_step

    def _keep(self, found: Integers, bits: int) -> None:
        """Keep weights as integers of their number of bits.

        Odd ones can need a bit more. They are then stored as v of 2v + 1.
        """
        values, scale, half = found.values, found.scale.float(), None
        if not _fits(values, INT4 if bits <= 4 else INT8):
            values, scale, half = (values - 1) // 2, 2 * scale, scale
        self.register_buffer("weight", values.to(torch.int8))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("half_step", half)

    def _round(self, x: Tensor, grid: Grid) -> Tensor:
        is_whole = (grid.low + self._zero, grid.high + self._zero) == (0, 255)
        if not torch.compiler.is_compiling():
            return (x / self.input_scale).round().clamp(grid.low, grid.high) * self.input_scale
        if not is_whole:  # else the type has no other levels
            x = x.clamp(grid.low * grid.scale, grid.high * grid.scale)
        scaled = (self.input_scale, self.zero_point)
        x = _onnx("QuantizeLinear", (x, *scaled), {}, torch.uint8)
        return _onnx("DequantizeLinear", (x, *scaled), {}, torch.float32)


class IntegerConv2d(IntegerLayer):
    """A convolution of inputs on levels with integer weights."""

    def __init__(self, layer: QuantizedConv2d):
        super().__init__(layer)
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        self.arguments = {name: getattr(layer, name) for name in names}

    def forward(self, x: Tensor) -> Tensor:
        """Return what the quantized convolution returns."""
        x, weight = self.operands(x)
        return convolve(x, weight, self.bias, self.arguments)


class IntegerLinear(IntegerLayer):
    """A product of inputs on levels with integer weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Return what the quantized linear layer returns."""
        x, weight = self.operands(x)
        return nn.functional.linear(x, weight, self.bias)


def _integer_form(layer: nn.Module) -> IntegerLayer:
    if isinstance(layer, QuantizedLinear):
        return IntegerLinear(layer)
    assert isinstance(layer, QuantizedConv2d)
    return IntegerConv2d(layer)


def _fits(values: Tensor, limits: tuple[int, int]) -> bool:
    return bool((values >= limits[0]).all() and (values <= limits[1]).all())


def _onnx(
    operator: str, inputs: Sequence[Tensor], attributes: dict[str, Any], dtype: torch.dtype
) -> Tensor:
    """Put an operator of ONNX into the graph that is traced; its result has the first's shape."""
    return torch.onnx.ops.symbolic(operator, inputs, attributes, dtype=dtype, shape=inputs[0].shape)
