"""Parts of a tensor that several paths use, as parts that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Slices = tuple[slice, ...]
"""A part of a tensor: a slice of each of its leading dimensions; () for all of it."""

Box = tuple[tuple[int, int], ...]
"""First and last position, exclusive, in each of a tensor's leading dimensions."""


def disjoint(parts: Sequence[Slices], shape: Sequence[int]) -> list[Slices]:
    """Return parts of a tensor that do not overlap and cover what the given ones cover.

    Parameters
    ----------
    parts
        Slices of the leading dimensions, without steps.
    shape
        Of the tensor.

    Examples
    --------
    >>> disjoint([(slice(4), slice(1)), (slice(2), slice(2)), (slice(1), slice(1))], (4, 2))
    [(slice(0, 2, None), slice(0, 2, None)), (slice(2, 4, None), slice(0, 1, None))]
    """
    depth = max(len(part) for part in parts)
    boxes = {_box(part, shape[:depth]) for part in parts}
    found: list[Box] = []
    for box in sorted(boxes, key=lambda x: (-math.prod(end - begin for begin, end in x), x)):
        rest = [box]
        for other in found:
            rest = [piece for part in rest for piece in _outside(part, other)]
        found += rest
    return [tuple(slice(begin, end) for begin, end in box) for box in found]


def _box(part: Slices, shape: Sequence[int]) -> Box:
    whole = (slice(None),) * (len(shape) - len(part))
    return tuple(x.indices(size)[:2] for x, size in zip((*part, *whole), shape, strict=True))


def _outside(box: Box, other: Box) -> Iterator[Box]:
    """Yield what of a box is not in another one, as boxes that do not overlap."""
    common = [
        (max(begin, first), min(end, last))
        for (begin, end), (first, last) in zip(box, other, strict=True)
    ]
    if any(begin >= end for begin, end in common):
        yield box
        return
    for i, (begin, end) in enumerate(box):
        first, last = common[i]
        if begin < first:
            yield (*common[:i], (begin, first), *box[i + 1 :])
        if last < end:
            yield (*common[:i], (last, end), *box[i + 1 :])
