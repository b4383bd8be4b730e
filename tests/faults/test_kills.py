"""A few kills of every kind; ``python tests/faults/kills.py`` makes more of them."""

from __future__ import annotations

import pytest
from kills import TARGETS, measure


@pytest.mark.slow
def test_a_killed_run_is_the_same_in_the_end(tmp_path):
    figures = measure(tmp_path, len(TARGETS), list(TARGETS), seed=1)
    assert figures["kills"] == dict.fromkeys(TARGETS, 1)
    assert figures["searches"] >= 2
    assert figures["finished_candidates_lost"] == 0
    assert figures["evaluated_twice"] == 0
    assert figures["problems"] == []
