"""Numbers are those of YAML 1.2."""

import math

import pytest

from nni_spos.files.yaml_files import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("064", 64),
        ("-08", -8),
        ("0o17", 15),
        ("0x1F", 31),
        ("12", 12),
        ("1e-3", 0.001),
        ("5E+2", 500.0),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("1.5e3", 1500.0),
        ("-.inf", -math.inf),
        ("!!float 3", 3.0),
        ("1:04", "1:04"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1e", "1e"),
        ("'064'", "064"),
    ],
)
def test_numbers(text, value):
    found = parse_yaml(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_and_what_only_says_that_it_is_one():
    assert math.isnan(parse_yaml("key: .nan")["key"])
    with pytest.raises(ValueError, match="'1:04' is not a whole number"):
        parse_yaml("key: !!int 1:04")
