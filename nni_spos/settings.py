"""Turn mappings that users write into frozen dataclasses, or into one clear error.

Used for recipes and for the tuner's class arguments. A field says what it takes with `setting`;
the checks themselves are those of the `schema` package.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import schema

from nni_spos.errors import RecipeError, SposError, nearest
from nni_spos.values import is_finite, shown

T = TypeVar("T")

Rule = tuple[Any, str]
"""What `schema` accepts, and the same in words."""

LARGEST = 2**63 - 1
"""Largest whole number that NumPy and PyTorch take everywhere, as a seed too."""

MAX_NAME_BYTES = 255
"""Of a file or folder; common file systems have no longer ones."""

MAX_PATH_BYTES = 1024
"""Of a file's name with its folders."""


def whole_number(low: int) -> Rule:
    """Rule for a whole number of at least `low`."""

    def inside(x: Any) -> bool:
        return type(x) is int and low <= x <= LARGEST

    words = "a whole number > 0" if low == 1 else f"a whole number >= {low}"
    return inside, f"{words}, below 2^63"


def is_file_name(value: Any) -> bool:
    """Whether a value is a name that a file system takes, of a file or a folder."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        name = value.encode()
    except UnicodeEncodeError:  # half of a pair of code units, or a byte that is no UTF-8
        return False
    longest = max(map(len, name.split(os.sep.encode())))
    return len(name) <= MAX_PATH_BYTES and longest <= MAX_NAME_BYTES


POSITIVE_INT = whole_number(1)
COUNT = whole_number(0)
BOOL: Rule = (bool, "true or false")
TEXT: Rule = (schema.And(str, len), "text")
FILE: Rule = (is_file_name, "the name of a file or folder")


def real(low: float, high: float = float("inf")) -> Rule:
    """Rule for a finite number in a closed interval."""
    limits = f"a number >= {low}" if high == float("inf") else f"a number from {low} to {high}"

    def inside(x: Any) -> bool:
        return is_finite(x) and low <= x <= high

    return inside, limits


def one_of(*values: Any) -> Rule:
    """Rule for one of a few values."""
    return schema.Or(*values), "one of " + ", ".join(map(str, values))


def optional(rule: Rule) -> Rule:
    """Rule that also takes null."""
    return schema.Or(None, rule[0]), f"{rule[1]}, or null"


def setting(
    rule: Rule,
    default: Any = dataclasses.MISSING,
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare a field: what it takes, its default, and how to convert a valid value.

    Parameters
    ----------
    rule
        What `schema` accepts, and the same in words for the error message.
    default
        Value when the key is absent; without one the key is required.
    convert
        Applied to a given value that passed the rule; may raise a SposError.
    """
    return dataclasses.field(default=default, metadata={"rule": rule, "convert": convert})


def read_settings(cls: type[T], content: Any, where: str) -> T:
    """Build the dataclass `cls` from a mapping.

    Parameters
    ----------
    cls
        Dataclass whose fields are made by `setting`.
    content
        What the user wrote; None counts as an empty mapping.
    where
        Name for messages, e.g. ``digits.yml: supernet``.

    Raises
    ------
    RecipeError
        An unknown key (with the nearest valid one), a missing key or a value outside its rule.
    """
    return cls(**check_settings(cls, content, where))


def check_settings(cls: type[Any], content: Any, where: str) -> dict[str, Any]:
    """Check and convert the given keys only, as `read_settings` does, without the defaults."""
    content = {} if content is None else content
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}: must map keys to values, got {shown(content)}.")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.metadata}
    unknown = [key for key in content if key not in fields]
    if unknown:
        raise RecipeError(
            f"{where}: unknown key {shown(unknown[0])}{nearest(unknown[0], fields) or '.'} "
            f"Keys: {', '.join(fields)}."
        )
    missing = [
        name
        for name, field in fields.items()
        if name not in content and field.default is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where}: the key '{missing[0]}' is missing.")
    return {key: _checked(fields[key], value, where) for key, value in content.items()}


def _checked(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    check, words = field.metadata["rule"]
    try:
        schema.Schema(check).validate(value)
    except schema.SchemaError:
        raise RecipeError(f"{where}.{field.name}: got {shown(value)}; must be {words}.") from None
    convert = field.metadata["convert"]
    if convert is None or value is None:
        return value
    try:
        return convert(value)
    except SposError as problem:
        raise RecipeError(f"{where}.{field.name}: {problem}") from None
