"""What a stage cost: how parts add up, what is read back, and what is measured."""

from __future__ import annotations

import time

import pytest

from nni_spos.process.stage_cost import StageCost, measure_since, read_stage_cost


def test_parts_add_up_and_the_highest_peak_counts():
    first, second = StageCost(2.0, 700, "cpu"), StageCost(3.5, 500, "a GPU")
    assert first + second == StageCost(5.5, 700, "a GPU")
    assert first + StageCost(1.0, None, "") == StageCost(3.0, 700, "cpu")
    assert StageCost(1.0, None, "") + StageCost(1.0, None, "") == StageCost(2.0, None, "")


@pytest.mark.parametrize("cost", [StageCost(2.5, 700, "cpu"), StageCost(0.0, None, "")])
def test_what_is_written_is_read(cost):
    assert read_stage_cost(cost.to_json()) == cost


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"seconds": "2"},
        {"seconds": True},
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"seconds": 2.0, "peak_memory_bytes": "much"},
    ],
)
def test_what_is_damaged_is_not_known(content):
    assert read_stage_cost(content) is None


def test_the_peak_grows_with_what_is_held():
    begin = time.monotonic()
    before = measure_since(begin)
    held = bytearray(300 * 2**20)
    held[:: 2**10] = b"x" * len(held[:: 2**10])  # touched, so that it is resident
    time.sleep(0.01)
    after = measure_since(begin)
    assert after.seconds >= before.seconds + 0.01
    if after.device == "cpu" and after.peak_memory_bytes is not None:
        assert before.peak_memory_bytes <= after.peak_memory_bytes
        assert after.peak_memory_bytes > 300 * 2**20
