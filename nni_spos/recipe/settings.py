"""Turn mappings that users write into frozen dataclasses, or into one clear error.

Used for recipes and for the tuner's class arguments. A field says what it takes with `setting`;
the checks themselves are those of the `schema` package.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import schema

from nni_spos.components import USERS, Registry
from nni_spos.errors import RecipeError, SposError, unknown
from nni_spos.values import is_finite, shown

T = TypeVar("T")


class Rule(NamedTuple):
    """What a key takes.

    Parameters
    ----------
    check
        What `schema` accepts.
    words
        The same in words.
    json
        The same as JSON Schema, or a function that returns it. It refuses nothing that `check`
        accepts; what JSON Schema cannot say is left to `check`.
    """

    check: Any
    words: str
    json: Mapping[str, Any] | Callable[[], Mapping[str, Any]] = MappingProxyType({})

    def accepts(self, value: Any) -> bool:
        """Whether a value follows the rule."""
        return bool(schema.Schema(self.check).is_valid(value))

    def json_schema(self) -> dict[str, Any]:
        """Return the rule as JSON Schema."""
        return dict(self.json() if callable(self.json) else self.json)


LARGEST = 2**63 - 1
"""Largest whole number that NumPy and PyTorch take everywhere, as a seed too."""

MAX_NAME_BYTES = 255
"""Longest name of a file or folder that common file systems take, in bytes."""

MAX_PATH_BYTES = 1024
"""Longest name of a file together with its folders, in bytes."""


def whole_number(low: int) -> Rule:
    """Rule for a whole number of at least `low`."""

    def inside(x: Any) -> bool:
        return type(x) is int and low <= x <= LARGEST

    words = "a whole number > 0" if low == 1 else f"a whole number >= {low}"
    json = {"type": "integer", "minimum": low, "maximum": LARGEST}
    return Rule(inside, f"{words}, below 2^63", json)


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
BOOL = Rule(bool, "true or false", {"type": "boolean"})
TEXT = Rule(schema.And(str, len), "text", {"type": "string", "minLength": 1})
FILE = Rule(
    is_file_name,
    "the name of a file or folder",
    {"type": "string", "minLength": 1, "maxLength": MAX_PATH_BYTES},
)


def real(low: float, high: float = float("inf")) -> Rule:
    """Rule for a finite number in a closed interval."""
    limits = f"a number >= {low}" if high == float("inf") else f"a number from {low} to {high}"

    def inside(x: Any) -> bool:
        return is_finite(x) and low <= x <= high

    json = {"type": "number", "minimum": low}
    return Rule(inside, limits, json if high == float("inf") else {**json, "maximum": high})


def one_of(*values: Any) -> Rule:
    """Rule for one of a few values."""
    return Rule(schema.Or(*values), "one of " + ", ".join(map(str, values)), {"enum": [*values]})


def optional(rule: Rule) -> Rule:
    """Rule that also takes null."""
    return either(Rule(None, "", {"type": "null"}), rule, f"{rule.words}, or null")


def either(first: Rule, second: Rule, words: str) -> Rule:
    """Rule that takes what one of two rules takes."""
    return Rule(
        schema.Or(first.check, second.check),
        words,
        lambda: {"anyOf": [first.json_schema(), second.json_schema()]},
    )


def list_of(rule: Rule, words: str) -> Rule:
    """Rule for a list whose items all follow one rule."""
    json = {"type": "array", "items": rule.json_schema()}
    return Rule(schema.Schema([rule.check]), words, json)


def mapping_of(names: Rule, rule: Rule, words: str) -> Rule:
    """Rule for a mapping whose names, and whose values, all follow one rule.

    JSON has no names but text, so its schema says nothing about the names.
    """
    json = {"type": "object", "additionalProperties": rule.json_schema()}
    return Rule(schema.Schema({names.check: rule.check}), words, json)


_OF_TYPE = {
    int: Rule(lambda x: type(x) is int, "a whole number", {"type": "integer"}),
    float: Rule(is_finite, "a number", {"type": "number"}),
    bool: BOOL,
    str: Rule(str, "text", {"type": "string"}),
    type(None): Rule(None, "null", {"type": "null"}),
}


def rule_of(annotation: Any) -> Rule | None:
    """Return the rule that the annotation of a parameter says; None if YAML has no such values.

    >>> rule_of(float).words, rule_of(int | None).words, rule_of(Sequence[str]).words
    ('a number', 'a whole number, or null', 'a list, each item text')
    >>> rule_of(Rule)
    """
    if annotation in _OF_TYPE:
        return _OF_TYPE[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, Sequence) and len(parts) == 1:
        item = rule_of(parts[0])
        return item and sequence_of(item, f"a list, each item {item.words}")
    if origin in (types.UnionType, typing.Union):
        rules = [rule_of(part) for part in parts]
        whole = rules[0]
        for rule in rules[1:]:
            if whole is None or rule is None:
                return None
            whole = either(whole, rule, f"{whole.words}, or {rule.words}")
        return whole
    return None


def sequence_of(rule: Rule, words: str) -> Rule:
    """Rule for a list, or a tuple as Python has it, whose items all follow one rule."""
    json = {"type": "array", "items": rule.json_schema()}
    return Rule(schema.Or([rule.check], (rule.check,)), words, json)


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


def component_rule(registry: Registry[Any]) -> Rule:
    """Rule for the name of a component; whether there is one is said by the registry."""

    def json() -> Mapping[str, Any]:
        # Which of a user's there are cannot be known.
        users = {"type": "string", "pattern": ":"}
        return {"anyOf": [{"enum": registry.names()}, users]}

    return Rule(TEXT.check, f"the name of a {registry.kind}, or {USERS}", json)


def component(registry: Registry[Any], default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that names a component; nothing is imported when a recipe is read.

    Parameters
    ----------
    registry
        Components of its kind.
    default
        As for `setting`.
    """

    def check(name: str) -> str:
        registry.check_name(name)
        return name

    return setting(component_rule(registry), default, check)


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
    strange = [key for key in content if key not in fields]
    if strange:
        raise RecipeError(f"{where}: {unknown('key', strange[0], fields)}")
    missing = [
        name
        for name, field in fields.items()
        if name not in content and field.default is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where}: the key '{missing[0]}' is missing.")
    return {key: _checked(fields[key], value, where) for key, value in content.items()}


def _checked(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    rule: Rule = field.metadata["rule"]
    if not rule.accepts(value):
        raise RecipeError(f"{where}.{field.name}: got {shown(value)}; must be {rule.words}.")
    convert = field.metadata["convert"]
    if convert is None or value is None:
        return value
    try:
        return convert(value)
    except SposError as problem:
        raise RecipeError(f"{where}.{field.name}: {problem}") from None


def check_values(section: Any) -> None:
    """Check the values of a dataclass that code has made, and convert what a recipe would say.

    Those of a recipe were checked before, see `read_settings`.

    Parameters
    ----------
    section
        Frozen dataclass whose fields are made by `setting`.

    Raises
    ------
    RecipeError
        A value is outside its rule.
    """
    for field in dataclasses.fields(section):
        if not field.metadata:
            continue
        value, convert = getattr(section, field.name), field.metadata["convert"]
        if value == field.default or (convert is not None and isinstance(value, tuple)):
            continue
        object.__setattr__(section, field.name, _checked(field, value, type(section).__name__))
