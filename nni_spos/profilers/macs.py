"""Multiply-adds of layers, by formula. One multiply-add counts as 1 FLOP, as in the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn

from nni_spos.errors import CostError

Formula = Callable[[Any, tuple[int, ...], tuple[int, ...]], int]
"""(layer, input shape, output shape) to multiply-adds; shapes have the batch dimension 1."""


def _conv(layer: Any, _: tuple[int, ...], output: tuple[int, ...]) -> int:
    per_output = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
    return math.prod(output) * per_output


def _linear(layer: Any, _: tuple[int, ...], output: tuple[int, ...]) -> int:
    return math.prod(output) * layer.in_features


def _nothing(*_: Any) -> int:
    return 0


_FORMULAS: dict[type[nn.Module], Formula] = {
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Conv3d: _conv,
    nn.Linear: _linear,
    # Only multiply-adds of convolutions and linear layers count (paper, section 4): not
    # normalisation, activations and pooling.
    **dict.fromkeys(
        [
            nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm,
            nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh,
            nn.Hardswish, nn.Hardsigmoid, nn.Softmax,
            nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
            nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten, nn.ZeroPad2d, nn.Upsample,
            nn.ChannelShuffle, nn.Sequential,
        ],
        _nothing,
    ),
}  # fmt: skip


def register_macs(layer: type[nn.Module], formula: Formula) -> None:
    """Say how many multiply-adds a layer of the user's own has.

    Parameters
    ----------
    layer
        Class of the layer; it must have no sub-layers.
    formula
        Called with (layer, input shape, output shape), shapes with the batch dimension 1.
    """
    _FORMULAS[layer] = formula


def count_macs(
    layer: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...], name: str = ""
) -> int:
    """Return the multiply-adds of one layer for one image.

    Parameters
    ----------
    layer
        A layer without sub-layers.
    input_shape, output_shape
        With the batch dimension, which must be 1.
    name
        For the error message.

    Raises
    ------
    CostError
        There is no formula for the layer's class or one of its bases.
    """
    for base in type(layer).__mro__:
        if base in _FORMULAS:
            return _FORMULAS[base](layer, input_shape, output_shape)
    raise CostError(
        f"layer '{name}': no formula for the multiply-adds of a {type(layer).__name__}. "
        "Give one with nni_spos.profilers.register_macs."
    )
