"""What to write instead of a plain layer that was given a choice, which it does not know."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

from nni.mutable import Mutable
from nni.mutable.symbol import SymbolicExpression
from torch import nn

from nni_spos.errors import SpaceError
from nni_spos.mutables.registration import SLICED_OPERATIONS

PLAIN = "torch.nn.modules."
"""Where PyTorch's layers are."""


def explain_choices() -> None:
    """Let NNI's choices say what to do where a plain layer gets one.

    A choice has items, each an expression, without an end: ``nn.LayerNorm(choice)`` would fill the
    memory with them. And what has no truth fails without a word about the layer that asked.
    """
    if SymbolicExpression.__bool__ is not _refuse_truth:
        SymbolicExpression.__iter__ = None
        SymbolicExpression.__bool__ = _refuse_truth


def _refuse_truth(choice: Any, refuse: Any = SymbolicExpression.__bool__) -> Any:
    """Stands in for NNI's own, which raises too."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        for layer, name, given in _given_choices(frame):
            raise SpaceError(_advice(layer, name, given))
        frame = frame.f_back
    return refuse(choice)


def plain_layer_advice(problem: BaseException) -> str:
    """Return which layer of PyTorch got a choice, and what to use; "" if none was the reason.

    PyTorch asks whether a number of channels is below 1, and NNI's choices have no answer to that.

    Parameters
    ----------
    problem
        What the constructor of a space raised.
    """
    for frame, _ in traceback.walk_tb(problem.__traceback__):
        for layer, name, choice in _given_choices(frame):
            return _advice(layer, name, choice)
    return ""


def kept_choice_advice(network: nn.Module) -> str:
    """Return the same of a layer of PyTorch that kept a choice until an image comes, or ""."""
    for place, module in network.named_modules():
        if type(module).__module__.startswith(PLAIN):
            for name, value in vars(module).items():
                if _choice_in(value) is not None:
                    return f"layer '{place}': {_advice(module, name, _choice_in(value))}"
    return ""


def _given_choices(frame: FrameType) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield the layer, argument and choice of a constructor of PyTorch that got one."""
    code = frame.f_code
    if code.co_name != "__init__" or not str(frame.f_globals.get("__name__")).startswith(PLAIN):
        return
    own, *names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    layer = frame.f_locals.get(own)
    for name in names:
        choice = _choice_in(frame.f_locals.get(name))
        if isinstance(layer, nn.Module) and choice is not None:
            yield layer, name, choice


def _choice_in(value: Any) -> Any:
    """Return a value that is a choice, or the first one in a tuple or list; None without one."""
    if isinstance(value, tuple | list):
        return next((x for x in value if isinstance(x, Mutable)), None)
    return value if isinstance(value, Mutable) and not isinstance(value, nn.Module) else None


def _advice(layer: nn.Module, name: str, choice: Any) -> str:
    kind = type(layer).__name__
    mutable = next((x.bound_type for x in SLICED_OPERATIONS if x.plain is type(layer)), None)
    text = f"nn.{kind} cannot have a choice as its argument '{name}', got {choice!r}."
    if mutable is not None:
        return f"{text} Use nni_spos.mutables.{mutable.__name__} instead."
    known = ", ".join(x.bound_type.__name__ for x in SLICED_OPERATIONS)
    return (
        f"{text} Choose among several {kind} with a LayerChoice. Layers of nni_spos.mutables that "
        f"can have choices: {known}."
    )
