"""Values that strangers wrote: how large they are, and how they are shown in a message."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

SHOWN = 80
"""Characters that a message shows of a value."""

DIGEST = "digest"
"""Name of the only value of a part that is known by its content, such as weights."""

MOST_CHANGES = 3
"""Changes that a message lists."""

_ABSENT = object()

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxstring = _short.maxother = _short.maxlong = SHOWN


def shown(value: Any) -> str:
    """Return a value for the middle of a message, cut off.

    Only what is shown is looked at: lists that hold each other can stand for more than fits into
    the memory, and deep ones for more levels than Python descends.

    >>> shown("a" * 1000) == repr("a" * 1000)
    False
    >>> shown({"name": 5, "stages": [4, 4]})
    "{'name': 5, 'stages': [4, 4]}"
    """
    try:
        text = _short.repr(value)
    except Exception:  # a number of thousands of digits, or an object whose repr fails
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what differs between two descriptions: its name, and its value before and now.

    >>> list(differing({"data": {"seed": 0}, "weights": {"digest": "3f"}}, {"data": {"seed": 1}}))
    [('data: seed', 0, 1), ('weights', '3f', None)]
    """
    for name, values in _pairs(before, now):
        if values[0] == values[1]:
            continue
        if all(isinstance(x, Mapping) or x is _ABSENT for x in values):
            inner = _pairs(*({} if x is _ABSENT else x for x in values))
            where = {key: name if key == DIGEST else f"{name}: {key}" for key, _ in inner}
            parts = [(where[key], pair) for key, pair in inner]
        else:
            parts = [(name, values)]
        for full, pair in parts:
            if pair[0] != pair[1]:
                first, second = (None if x is _ABSENT else x for x in pair)
                yield full, first, second


def _pairs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    """Return the values that two mappings have for each of their keys."""
    keys = dict.fromkeys([*before, *now])
    return [(str(x), (before.get(x, _ABSENT), now.get(x, _ABSENT))) for x in keys]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs between two descriptions for the middle of a message; "" if nothing.

    >>> changes({"data": {"seed": 0}}, {"data": {"seed": 1}})
    'data: seed was 0 and now is 1'
    """
    texts = [f"{name} was {_or_none(x)} and now is {_or_none(y)}"
             for name, x, y in differing(before, now)]  # fmt: skip
    more = len(texts) - MOST_CHANGES
    return "; ".join(texts[:MOST_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def _or_none(value: Any) -> str:
    return "none" if value is None else shown(value)


def as_number(value: Any) -> Any:
    """Return a number of another kind, such as of numpy, as Python's; other values as they are.

    >>> import numpy as np
    >>> as_number(np.float32(0.5)), as_number(np.int64(3)), as_number("x"), as_number(True)
    (0.5, 3, 'x', True)
    """
    if type(value) in (int, float, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def not_finite(values: Mapping[str, Any]) -> str:
    """Return in words the first number that is not finite, or ``""``.

    >>> not_finite({"top1": 1.0, "loss": float("nan")}), not_finite({"top1": 1, "title": "x"})
    ('loss = nan', '')
    """
    found = (x for x in values.items() if isinstance(x[1], float) and not math.isfinite(x[1]))
    return next((f"{name} = {value}" for name, value in found), "")


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number that floating point has; true and false are none.

    >>> is_finite(1), is_finite(True), is_finite(10**400), is_finite(float("nan"))
    (True, False, False, False)
    """
    return type(value) in (int, float) and abs(value) <= 1.7976931348623157e308


def is_plain(value: Any) -> bool:
    """Whether a value is made of what JSON has, and of tuples: no tensors, no objects.

    >>> is_plain({"a": [1, (2.5, None)]}), is_plain({"a": {1, 2}}), is_plain([b"a"])
    (True, False, False)
    """
    if isinstance(value, dict):
        return all(map(is_plain, value.keys())) and all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, str | bool | int | float)


def expands_beyond(root: Any, limit: int, children: Callable[[Any], Iterable[Any]]) -> bool:
    """Whether a value has more than `limit` parts when what is shared is counted each time.

    A few lines of YAML whose aliases name each other stand for billions of values, and a value
    that contains itself for infinitely many.

    Parameters
    ----------
    root
        The value.
    limit
        Number of parts, the value itself among them.
    children
        Returns the parts of a part.
    """
    sizes: dict[int, int] = {}
    parts = {id(root): root}  # kept, so that no number is given to two
    begun: set[int] = set()
    waiting = [root]
    while waiting:
        part = waiting[-1]
        if id(part) in sizes:
            waiting.pop()
            continue
        inner = list(children(part))
        missing = [x for x in inner if id(x) not in sizes]
        if id(part) not in begun and missing:
            begun.add(id(part))
            if any(id(x) in begun for x in missing) or len(parts) > limit:
                return True
            parts.update((id(x), x) for x in missing)
            waiting += missing
            continue
        sizes[id(part)] = 1 + sum(sizes[id(x)] for x in inner)
        begun.discard(id(part))
        if sizes[id(part)] > limit:
            return True
        waiting.pop()
    return False


def plain_parts(value: Any) -> Iterable[Any]:
    """Return the keys and values of a mapping, or the items of a list, tuple or set."""
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list | tuple | set | frozenset) else ()
