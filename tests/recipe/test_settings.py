import math
from dataclasses import dataclass

import pytest

from nni_spos.constraint import Constraint
from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import (
    BOOL,
    COUNT,
    POSITIVE_INT,
    TEXT,
    check_settings,
    one_of,
    optional,
    read_settings,
    real,
    setting,
)
from nni_spos.values import shown


def upper_bound(text: str) -> float:
    return Constraint.parse(text).high


@dataclass(frozen=True)
class Example:
    steps: int = setting(POSITIVE_INT)
    warmup: int = setting(COUNT, 0)
    fast: bool = setting(BOOL, False)
    name: str = setting(TEXT, "plain")
    rate: float = setting(real(0), 0.5)
    share: float = setting(real(0, 1), 0.1)
    kind: str = setting(one_of("evolution", "random"), "evolution")
    clip: float | None = setting(optional(real(0)), None)
    limit: float | None = setting(optional(TEXT), None, upper_bound)


def read(**content):
    return read_settings(Example, {"steps": 1, **content}, "run.yml: example")


def test_defaults_and_given_values():
    assert read() == Example(steps=1)
    assert read(warmup=3, clip=0.5).clip == 0.5
    assert read(limit="flops <= 3").limit == 3.0


@pytest.mark.parametrize(
    ("key", "accepted", "refused", "words"),
    [
        (
            "steps",
            [1, 2**63 - 1],
            [0, -1, 1.0, True, "1", None, 2**63],
            "a whole number > 0, below 2^63",
        ),
        ("warmup", [0, 1], [-1, 0.0, False, "0", None, 10**400], "a whole number >= 0, below 2^63"),
        ("fast", [True, False], [0, 1, "true", None], "true or false"),
        ("name", ["a"], ["", 1, None, ["a"]], "text"),
        ("rate", [0, 0.1, 1e9], [-0.1, math.nan, math.inf, 10**400, True, "1"], "a number >= 0"),
        ("share", [0, 0.5, 1], [-0.001, 1.001, math.nan, None, []], "a number from 0 to 1"),
        ("kind", ["random"], ["Random", "", None, 1, {}], "one of evolution, random"),
        ("clip", [None, 0.5], [-1, "none", math.inf], "a number >= 0, or null"),
    ],
)
def test_rules(key, accepted, refused, words):
    for value in accepted:
        assert getattr(read(**{key: value}), key) == value
    for value in refused:
        with pytest.raises(RecipeError) as caught:
            read(**{key: value})
        got = shown(value)
        assert str(caught.value) == f"run.yml: example.{key}: got {got}; must be {words}."


def test_a_conversion_that_fails_names_the_key():
    with pytest.raises(RecipeError, match=r"^run.yml: example.limit: 'flops' is not a constraint"):
        read(limit="flops")


def test_null_is_not_converted():
    assert read(limit=None).limit is None


def test_unknown_keys():
    with pytest.raises(RecipeError, match=r"unknown key 'wramup'; did you mean 'warmup'[?] Keys: "):
        read(wramup=1)
    with pytest.raises(RecipeError, match=r"example: unknown key 5\. Keys: steps, warmup, fast"):
        read_settings(Example, {"steps": 1, 5: 1}, "run.yml: example")
    with pytest.raises(RecipeError, match=r"^run.yml: example: unknown key 'a\\n'"):
        read_settings(Example, {"steps": 1, "a\n": 1}, "run.yml: example")


def test_missing_keys():
    for content in ({}, None, {"warmup": 1}):
        with pytest.raises(RecipeError, match=r"^run.yml: the key 'steps' is missing\.$"):
            read_settings(Example, content, "run.yml")


@pytest.mark.parametrize("content", [[], "steps: 1", 5])
def test_must_be_a_mapping(content):
    with pytest.raises(RecipeError, match=r"run.yml: must map keys to values, got "):
        read_settings(Example, content, "run.yml")


def test_check_settings_returns_what_was_given():
    given = check_settings(Example, {"steps": 2, "limit": "flops <= 3"}, "run.yml")
    assert given == {"steps": 2, "limit": 3.0}
