"""Multiply-adds of layers by a user's own formulas. One multiply-add counts as 1 FLOP."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers.scripted import ScriptedLayer

Formula = Callable[[Any, tuple[int, ...], tuple[int, ...]], int]
"""(layer, input shape, output shape) to multiply-adds; shapes have the batch dimension 1."""

_FORMULAS: dict[type[nn.Module], Formula] = {}


def register_macs(layer: type[nn.Module], formula: Formula) -> None:
    """Say how many multiply-adds a layer has, instead of counting what it computes.

    Needed for layers that call what cannot be counted, such as a custom operator, a Fourier
    transform or a solver of linear equations. It is also the way to say what a layer costs where
    it is deployed, if that is not what it computes here.

    Parameters
    ----------
    layer
        Class of the layer, which sub-classes inherit from. It counts as one layer, with all
        sub-layers; there can be no choice units among these.
    formula
        Called with (layer, input shape, output shape), shapes with the batch dimension 1; those
        of the first tensor given and returned. Returns a whole number.
    """
    _FORMULAS[layer] = formula


def is_registered(layer: nn.Module) -> bool:
    """Whether there is a formula for a layer's class or one of its bases."""
    return _find_class(layer) is not None


def apply_formula(
    layer: nn.Module, input_shape: tuple[int, ...], output_shape: tuple[int, ...], name: str
) -> int:
    """Return what the formula for a layer gives.

    Parameters
    ----------
    layer
        A layer for which there is one.
    input_shape, output_shape
        With the batch dimension, which must be 1.
    name
        For the error message.

    Raises
    ------
    CostError
        It fails, or gives no whole number.
    """
    base = _find_class(layer)
    assert base is not None
    seen = layer.scripted if isinstance(layer, ScriptedLayer) else layer
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


def _find_class(layer: nn.Module) -> type[nn.Module] | None:
    """Return the class whose formula is that of a layer."""
    if isinstance(layer, ScriptedLayer):  # of its class it knows the name
        return next((x for x in _FORMULAS if x.__name__ == layer.title), None)
    return next((base for base in type(layer).__mro__ if base in _FORMULAS), None)
