"""What a network keeps from one forward pass to the next, observed while it runs."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_KNOWN = ("torch.nn.modules.", "nni_spos.", "nni.")
"""Modules whose classes are defined here keep nothing but BatchNorm's statistics."""

_OURS = ("forward", "_sampled", "_part", "_parts")
"""Attributes that change with the path."""
DEPTH = 4
"""How deep objects inside of others are looked at."""
MOST = 10_000
"""Items of a container that is looked at: a list of all files is no state."""
_OF_EVERY_MODULE = vars(nn.Module()).keys() - {"training"}


@contextlib.contextmanager
def kept_state(network: nn.Module) -> Iterator[None]:
    """Give the modules of a network back what they keep, whatever runs meanwhile.

    That is attributes, the values of tensors, and what is in lists, dictionaries, sets and plain
    objects, to a depth of `DEPTH`; not what a module keeps outside of itself.
    """
    saved = list(_values(network))
    contents = [(x, _content(x)) for _, _, value in saved for x in _within(value)]
    try:
        yield
    finally:
        names = {(id(place), name) for place, name, _ in saved}
        for place, name, _ in list(_values(network)):
            if (id(place), name) not in names:
                del place[name]
        for place, name, value in saved:
            if name not in place or place[name] is not value:
                place[name] = value
        for value, content in contents:
            _restore(value, content)


def _foreign(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules whose code is not known."""
    return [
        (name, module)
        for name, module in network.named_modules()
        if not f"{type(module).__module__}.".startswith(_KNOWN)
    ]


def _values(network: nn.Module) -> Iterator[tuple[dict[str, Any], str, Any]]:
    """Yield where unknown modules keep a value, its name, and the value."""
    for _, module in _foreign(network):
        for place in (vars(module), module._buffers, module._parameters):
            for name, value in place.items():
                if name not in _OURS and name not in _OF_EVERY_MODULE:
                    yield place, name, value


def _within(value: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Yield a value, and what it holds, as far as it can be changed."""
    if isinstance(value, Tensor):
        yield value
    elif depth and (items := _items(value)) is not None:
        yield value
        for item in items:
            yield from _within(item, depth - 1)


def _items(value: Any) -> list[Any] | None:
    """Return what a container or a plain object holds; None for another value, or for much."""
    if isinstance(value, dict):
        items: Collection[Any] = value.values()
    elif isinstance(value, list | tuple | set):
        items = value
    elif _is_plain(value):
        items = vars(value).values()
    else:
        return None
    return list(items) if len(items) <= MOST else None


def _content(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value._version, value.detach().clone()
    if isinstance(value, list | dict | set):
        return copy.copy(value)
    return dict(vars(value)) if _is_plain(value) else None


def _restore(value: Any, content: Any) -> None:
    if isinstance(value, Tensor):
        version, before = content
        if value._version != version:
            with torch.no_grad():
                value.copy_(before)
    elif isinstance(value, list):
        value[:] = content
    elif isinstance(value, dict | set):
        value.clear()
        value.update(content)
    elif _is_plain(value):
        vars(value).clear()
        vars(value).update(content)


def _is_plain(value: Any) -> bool:
    """Whether a value is an object of some class that keeps attributes."""
    no = (nn.Module, Tensor, type, ModuleType)
    return hasattr(value, "__dict__") and not isinstance(value, no) and not callable(value)


class SideEffects:
    """Compares the modules of a network, and PyTorch's generator, with what they were.

    Parameters
    ----------
    network
        As it is now.
    """

    def __init__(self, network: nn.Module):
        self._modules = _foreign(network)
        self._before = [_snapshot(module) for _, module in self._modules]
        self._generator = torch.get_rng_state()

    def find(self) -> str | None:
        """Return in words what has changed, or None."""
        for (name, module), before in zip(self._modules, self._before, strict=True):
            after = _snapshot(module)
            if after != before:
                changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
                where = f"'{name}'" if name else "the space"
                return f"{where} changes its '{changed[0]}' in the forward pass"
        if not torch.equal(torch.get_rng_state(), self._generator):
            return "it draws random numbers in evaluation"
        return None


def _snapshot(module: nn.Module) -> dict[str, tuple[Any, ...]]:
    values = {**vars(module), **module._buffers, **module._parameters}
    found = {name: _mark(value) for name, value in values.items() if name not in _OURS}
    code = sys.modules.get(type(module).__module__)
    for name, value in vars(code).items() if code is not None else ():
        if isinstance(value, list | dict | set | int | float) and not name.startswith("__"):
            found[f"{type(module).__module__}.{name}"] = _mark(value)
    return found


def _mark(value: Any, depth: int = DEPTH) -> tuple[Any, ...]:
    """Return what changes if a value is changed, or one that it holds."""
    if isinstance(value, Tensor):
        return id(value), value._version
    items = _items(value)
    if depth == 0 or not items:
        return (id(value),)
    return id(value), *(_mark(item, depth - 1) for item in items)
