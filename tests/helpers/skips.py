"""Skipped tests are errors where everything that tests need should be there."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

VARIABLE = "NNI_SPOS_REFUSE_SKIPS"
"""Set by ``.ci/run``: without it nobody would see that a machine lacks what some tests need."""

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
"""Published tables and images beside the repository, which are not in it."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not report.skipped or hasattr(report, "wasxfail") or not os.environ.get(VARIABLE):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not may_be_skipped(item, reason):
        report.outcome = "failed"
        report.longrepr = f"{reason}. With {VARIABLE} set, that is an error: install what it needs."
    return report


def may_be_skipped(item: pytest.Item, reason: str) -> bool:
    """Return whether a test needs what not every machine can have."""
    lacks_data = str(SHARED_DATA) in reason and not SHARED_DATA.is_dir()
    return item.get_closest_marker("gpu") is not None or lacks_data
