"""The processor time of each test, and a limit for tests without a marker.

Wall time would blame tests for what else the machine does. Processes that a test started and
waited for are counted as its own. Write ``--cpu-limit=2``, with a sign: pytest takes a word on its
own for a path before it knows these options.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

DEAR = ("nni", "spawn", "slow", "gpu")
"""The markers of tests that ``make test`` leaves out, so that it takes minutes."""

PHASES = ("setup", "call", "teardown")

NOISE = 3.0
"""How much longer the same test may take beside others, which share caches and cores with it."""


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("nni_spos")
    group.addoption(
        "--cpu-limit",
        type=float,
        metavar="SECONDS",
        help=f"fail tests that take more processor time and have none of {', '.join(DEAR)}",
    )
    group.addoption(
        "--cpu-times",
        type=Path,
        metavar="FILE",
        help="write the processor time of each test's setup, call and teardown in seconds",
    )


def register(config: pytest.Config) -> None:
    config.pluginmanager.register(Clock(config.getoption("cpu_limit")))
    # With pytest-xdist the workers send their reports to the one process that writes.
    if (file := config.getoption("cpu_times")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(TimesFile(file))


def seconds() -> float:
    """Return the processor time of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Clock:
    """Take the time of each phase of a test, and refuse a call that takes longer than allowed."""

    def __init__(self, limit: float | None):
        self.limit = limit

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._timed(item, "setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        result = yield from self._timed(item, "call")
        taken = dict(item.user_properties)["call"]
        is_marked = any(map(item.get_closest_marker, DEAR))
        if self.limit is not None and taken > NOISE * self.limit and not is_marked:
            pytest.fail(
                f"took {taken:.1f} s of processor time; without a marker a test may take "
                f"{self.limit:g} s, here {NOISE * self.limit:g} s. Make it cheaper, or mark it: "
                "@pytest.mark.nni if it starts nnictl, @pytest.mark.spawn if it starts other "
                "processes, @pytest.mark.slow if it computes.",
                pytrace=False,
            )
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._timed(item, "teardown"))

    def _timed(self, item: pytest.Item, phase: str) -> Generator[None, object, object]:
        before = seconds()
        try:
            return (yield)
        finally:
            item.user_properties.append((phase, round(seconds() - before, 2)))


class TimesFile:
    """Write a line for each test as soon as it has ended."""

    def __init__(self, file: Path):
        self.file = file
        file.write_text("\t".join((*PHASES, "test")) + "\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "teardown":
            return
        taken = dict(report.user_properties)
        figures = [f"{taken.get(phase, 0.0):.2f}" for phase in PHASES]
        with self.file.open("a") as stream:
            stream.write("\t".join((*figures, plain_name(report.nodeid))) + "\n")


def plain_name(node_id: str) -> str:
    """Return the name of a test without the group that pytest-xdist puts behind it."""
    name, at, group = node_id.rpartition("@")
    return name if at and "]" not in group else node_id
