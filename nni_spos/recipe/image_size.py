"""Height and width of images: one number for squares, two for all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import schema

from nni_spos.recipe.settings import POSITIVE_INT, Rule

ImageSize: TypeAlias = int | tuple[int, int]
"""In pixels: the side of a square, or (height, width) of what is none."""

IMAGE_SIZE = Rule(
    schema.Or(
        POSITIVE_INT.check,
        schema.And(
            schema.Or([POSITIVE_INT.check], (POSITIVE_INT.check,)), lambda sides: len(sides) == 2
        ),
    ),
    "a whole number > 0, or two of them, [height, width]",
    {
        "anyOf": [
            POSITIVE_INT.json_schema(),
            {"type": "array", "items": POSITIVE_INT.json_schema(), "minItems": 2, "maxItems": 2},
        ]
    },
)
"""What a recipe and the argument of a space take."""


def read_size(value: Any) -> ImageSize:
    """Return a size in its one form, in which a square is a single number.

    Raises
    ------
    ValueError
        It is not a size.

    Examples
    --------
    >>> read_size(32), read_size([32, 32]), read_size([48, 64])
    (32, 32, (48, 64))
    """
    if not IMAGE_SIZE.accepts(value):
        raise ValueError(f"a size of images must be {IMAGE_SIZE.words}, got {value!r}.")
    if isinstance(value, int):
        return value
    height, width = value
    return height if height == width else (height, width)


def height_width(size: int | Sequence[int]) -> tuple[int, int]:
    """Return height and width.

    >>> height_width(32), height_width((48, 64))
    ((32, 32), (48, 64))
    """
    if isinstance(size, int):
        return (size, size)
    height, width = size
    return (height, width)


def size_as_json(size: ImageSize) -> int | list[int]:
    """Return a size as JSON and YAML have it."""
    return size if isinstance(size, int) else list(size)
