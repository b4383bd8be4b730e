"""What several paths use of a tensor, cut into parts that do not overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nni_spos.mutables.boxes import disjoint


def covered(parts, shape):
    found = np.zeros(shape, dtype=int)
    for part in parts:
        found[part] += 1
    return found


@pytest.mark.parametrize("seed", range(20))
def test_every_element_is_in_one_part_exactly_if_a_path_uses_it(seed):
    generator = np.random.default_rng(seed)
    shape = (6, 5, 3)
    parts = []
    for _ in range(4):
        ends = [sorted(generator.integers(0, size + 1, 2)) for size in shape]
        parts.append(tuple(slice(begin, end) for begin, end in ends)[: generator.integers(1, 4)])
    expected = covered(parts, shape) > 0
    assert (covered(disjoint(parts, shape), shape) == expected).all()


def test_prefixes_that_contain_each_other_are_one_part():
    parts = [(slice(2), slice(3)), (slice(4), slice(3)), (slice(4), slice(1))]
    for order in itertools.permutations(parts):
        assert disjoint(order, (6, 5)) == [(slice(0, 4), slice(0, 3))]


def test_parts_of_fewer_dimensions_have_all_of_the_others():
    found = disjoint([(slice(2),), (slice(3), slice(1))], (4, 2))
    assert covered(found, (4, 2)).tolist() == [[1, 1], [1, 1], [1, 0], [0, 0]]
