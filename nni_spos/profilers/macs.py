"""Multiply-adds of layers, by formula. One multiply-add counts as 1 FLOP, as in the paper."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers.scripted import ScriptedLayer

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


_BUILT_IN = dict(_FORMULAS)


def register_macs(layer: type[nn.Module], formula: Formula) -> None:
    """Say how many multiply-adds a layer of the user's own has.

    Parameters
    ----------
    layer
        Class of the layer. It counts as one layer, with all sub-layers; there can be no choice
        units among these.
    formula
        Called with (layer, input shape, output shape), shapes with the batch dimension 1; those
        of the first tensor given and returned. Returns a whole number.
    """
    _FORMULAS[layer] = formula


def count_macs(
    layer: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...], name: str = ""
) -> int:
    """Return the multiply-adds of one layer for one image.

    Parameters
    ----------
    layer
        A layer; only one with a formula that `register_macs` got may have sub-layers.
    input_shape, output_shape
        With the batch dimension, which must be 1.
    name
        For the error message.

    Raises
    ------
    CostError
        There is no formula for the layer's class or one of its bases, or it gives no number.
    """
    base = _find_class(layer)
    if base is None:
        raise CostError(_missing_formula(layer, name))
    seen = layer.scripted if isinstance(layer, ScriptedLayer) else layer
    if not is_registered(layer):
        try:
            return _FORMULAS[base](seen, input_shape, output_shape)
        except AttributeError:  # a traced module keeps no kernel size and the like
            raise CostError(_missing_formula(layer, name)) from None
    title = f"layer '{name}': the formula for the multiply-adds of a {base.__name__}"
    try:
        macs: object = _FORMULAS[base](seen, input_shape, output_shape)
    except Exception as problem:
        text = " ".join(str(problem).split())
        raise CostError(
            f"{title} fails for input {input_shape} and output {output_shape} "
            f"({type(problem).__name__}: {text:.200})."
        ) from problem
    if not isinstance(macs, Real) or not float(macs).is_integer() or macs < 0:
        raise CostError(f"{title} must give a whole number of at least 0, got {macs!r:.80}.")
    number: Any = macs
    return int(number)


def has_formula(layer: nn.Module) -> bool:
    """Whether there is a formula for a layer's class or one of its bases."""
    return _find_class(layer) is not None


def is_registered(layer: nn.Module) -> bool:
    """Whether the formula for a layer is the user's own."""
    base = _find_class(layer)
    return base is not None and _FORMULAS[base] is not _BUILT_IN.get(base)


def _find_class(layer: nn.Module) -> type[nn.Module] | None:
    """Return the class whose formula is that of a layer."""
    if not isinstance(layer, ScriptedLayer):
        return next((base for base in type(layer).__mro__ if base in _FORMULAS), None)
    # Of its class, a scripted module knows the name.
    base = next((x for x in _FORMULAS if x.__name__ == layer.title), None)
    return None if layer.has_layers and base in _BUILT_IN else base


def _missing_formula(layer: nn.Module, name: str) -> str:
    if isinstance(layer, ScriptedLayer):
        return (
            f"layer '{name}': no formula for the multiply-adds of a scripted {layer.title}, whose "
            "layers cannot be told apart. Use the module itself, without torch.jit, or give a "
            "formula for its class with nni_spos.profilers.register_macs."
        )
    return (
        f"layer '{name}': no formula for the multiply-adds of a {type(layer).__name__}. "
        "Give one with nni_spos.profilers.register_macs."
    )
