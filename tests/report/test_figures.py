"""The numbers behind the charts, by hand and by brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from small_report import OUTCOMES, SPACE

from nni_spos.evolution import Candidate, State
from nni_spos.report.figures import (
    Generation,
    best_of_parts,
    count_choices,
    front_points,
    summarise_generations,
)
from nni_spos.search.results import load_results

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20)


@given(POINTS)
def test_the_front_is_what_no_point_beats(points):
    def beaten(a):
        return any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in points)

    candidates = [
        Candidate({}, n, 0, {"flops": cost}, State.DONE, {"top1": result})
        for n, (cost, result) in enumerate(points)
    ]
    front = front_points(candidates, "top1", "flops")
    assert front == sorted({point for point in points if not beaten(point)})


def test_generations_by_hand(run):
    rows = summarise_generations(load_results(run.folder).candidates, "top1")
    # The failed candidate of the first generation has no result; the second's mean is 168 / 3.
    assert rows == [
        Generation(number=0, num_so_far=2, best=60.0, mean=55.0, best_so_far=60.0),
        Generation(number=1, num_so_far=5, best=70.0, mean=56.0, best_so_far=70.0),
    ]


def test_the_best_so_far_survives_a_worse_generation(run):
    candidates = load_results(run.folder).candidates
    candidates[4].metrics["top1"] = 41.0
    assert [row.best_so_far for row in summarise_generations(candidates, "top1")] == [60.0, 60.0]


def test_choices_are_counted_with_those_that_failed(run):
    layer_1, bits_1, layer_2 = count_choices(load_results(run.folder).candidates, SPACE)
    np.testing.assert_allclose(layer_1.shares, [[2 / 3, 2 / 3], [1 / 3, 1 / 3]])
    np.testing.assert_allclose(bits_1.shares, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    np.testing.assert_allclose(layer_2.shares, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])
    assert (layer_1.label, bits_1.choices, layer_2.generations) == ("layer_1", (2, 4), [0, 1])
    assert len(OUTCOMES) == 6


def test_the_best_of_each_part_of_a_limit_by_hand(run):
    candidates = load_results(run.folder).candidates
    # 1111, 1112 and 1131 are in the twelfth of twenty parts of 2000; 1323 and 1344 in the 14th.
    assert best_of_parts(candidates, "top1", "flops", 2000) == [(1131, 70.0), (1323, 60.0)]
    # A part includes its upper end, and nothing above the limit counts.
    assert best_of_parts(candidates, "top1", "flops", 1323, 1) == [(1131, 70.0)]
    assert best_of_parts(candidates, "top1", "flops", 1131, 1131) == [
        (1111, 50.0),
        (1112, 40.0),
        (1131, 70.0),
    ]
