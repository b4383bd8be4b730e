"""Results as NNI has them: one of them is called ``default``, which it sorts by and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT = "default"
"""NNI's name of the result."""

RESULT = "top1"
"""Our name of it, unless the task has another objective."""


def to_nni(results: Mapping[str, Any], name: str = RESULT) -> dict[str, Any]:
    """Return results with the one that NNI asks for, here called `name`; it comes first.

    Raises KeyError if there is none.

    >>> to_nni({"loss": 1.5, "top1": 72.0})
    {'default': 72.0, 'loss': 1.5}
    """
    if DEFAULT in results:
        return dict(results)
    rest = {key: value for key, value in results.items() if key != name}
    return {DEFAULT: results[name], **rest}


def from_nni(reported: Any, name: str = RESULT) -> dict[str, Any]:
    """Return results under our names; the one that NNI asks for is called `name`.

    >>> from_nni({"default": 72.0, "loss": 1.5}), from_nni(72.0)
    ({'top1': 72.0, 'loss': 1.5}, {'top1': 72.0})
    """
    if not isinstance(reported, Mapping):
        return {name: reported}
    if DEFAULT not in reported:
        return dict(reported)
    rest = {key: value for key, value in reported.items() if key != DEFAULT}
    return {name: reported[DEFAULT], **rest}
