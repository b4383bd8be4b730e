"""What strangers may write, as strategies, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from nni_spos.errors import MAX_LENGTH, SposError

STABLE = settings(derandomize=True, deadline=None, max_examples=150, database=None)
"""The same examples in every run."""

TEXTS = st.text(max_size=6) | st.sampled_from(
    ["", "a" * 5000, "a\0b", "first\nsecond", "\x1b[31m", "\u2028", "../..", "flops <= 1", "choice"]
)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**63, -(2**63) - 1, 10**308, 10**400, 1e308, 5e-324, -0.0])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def changed(valid: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Anything in the place of one part of a valid value, or of all of it."""
    return st.tuples(valid, st.integers(0, 10**6), JSON).map(lambda x: _replace(*x)) | valid | JSON


def _replace(content: Any, place: int, value: Any) -> Any:
    if not isinstance(content, dict | list) or not content or place % 7 == 0:
        return value
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key = keys[place % len(keys)]
    part = _replace(content[key], place // len(keys), value)
    if isinstance(content, dict):
        return {**content, key: part}
    return [*content[:key], part, *content[key + 1 :]]


def read_or_refused(read: Callable[[], Any], name: str = "") -> Any:
    """Return what is read, or None if it is refused as it must be: in one line."""
    try:
        return read()
    except SposError as problem:
        text = str(problem)
        assert text
        assert text.isprintable()
        assert len(text) <= MAX_LENGTH
        assert name in text
        return None
