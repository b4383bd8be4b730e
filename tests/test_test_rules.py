"""What the tests themselves must keep to: time without a marker, and no unseen skips."""

from __future__ import annotations

from pathlib import Path

import crashed_processes
import pytest
import skips

pytest_plugins = ["pytester"]

CONFTEST = """
import processor_time
import skips

def pytest_addoption(parser):
    processor_time.add_options(parser)

def pytest_configure(config):
    for name in processor_time.DEAR:
        config.addinivalue_line("markers", f"{name}: as in pyproject.toml")
    processor_time.register(config)
    config.pluginmanager.register(skips)
"""

COMPUTES = """
import os, time
import pytest

def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def test_long():
    compute(0.1)

def test_a_childs_time_counts():
    if (child := os.fork()) == 0:
        compute(0.1)
        os._exit(0)
    os.waitpid(child, 0)

@pytest.mark.slow
def test_marked():
    compute(0.1)

def test_waiting_costs_nothing():
    time.sleep(0.3)

def test_broken():
    compute(0.1)
    assert "the reason" == ""
"""

SKIPS = """
import pytest

@pytest.mark.skipif(True, reason="no sshd")
def test_marked(): pass

def test_inside(): pytest.skip("no sshd")

@pytest.fixture
def sshd(): pytest.skip("no sshd")

def test_fixture(sshd): pass

@pytest.mark.gpu
def test_gpu(): pytest.skip("no CUDA")

@pytest.mark.xfail
def test_known(): assert False
"""


@pytest.fixture
def suite(pytester):
    pytester.makeconftest(CONFTEST)
    return pytester


def test_a_test_without_a_marker_may_not_take_long(suite):
    suite.makepyfile(COMPUTES)
    done = suite.runpytest("--cpu-limit=0.02")
    done.assert_outcomes(passed=2, failed=3)
    output = done.stdout.str()
    assert output.count("s of processor time; without a marker a test may take 0.02 s") >= 2
    assert "@pytest.mark.spawn if it starts other processes" in output
    assert "the reason" in output, "of what failed by itself, its own reason is told"
    suite.runpytest().assert_outcomes(passed=4, failed=1)


def test_the_times_are_written(suite):
    suite.makepyfile(COMPUTES)
    suite.runpytest(
        "--cpu-times", "times.tsv", "--deselect", "test_the_times_are_written.py::test_broken"
    )
    title, *lines = (suite.path / "times.tsv").read_text().splitlines()
    assert title.split("\t") == ["setup", "call", "teardown", "test"]
    calls = {line.split("\t")[3].rpartition("::")[2]: float(line.split("\t")[1]) for line in lines}
    assert len(calls) == 4
    assert calls.pop("test_waiting_costs_nothing") < 0.06
    assert min(calls.values()) >= 0.09


def test_a_skip_is_an_error_where_everything_is_there(suite, monkeypatch):
    suite.makepyfile(SKIPS)
    monkeypatch.setenv(skips.VARIABLE, "1")
    done = suite.runpytest()
    done.assert_outcomes(errors=2, failed=1, skipped=1, xfailed=1)
    assert f"no sshd. With {skips.VARIABLE} set, that is an error" in done.stdout.str()
    monkeypatch.delenv(skips.VARIABLE)
    suite.runpytest().assert_outcomes(skipped=4, xfailed=1)


@pytest.mark.parametrize("is_there", [True, False])
def test_published_data_may_be_missing_as_a_whole(suite, monkeypatch, tmp_path, is_there):
    monkeypatch.setenv(skips.VARIABLE, "1")
    monkeypatch.setattr(skips, "SHARED_DATA", tmp_path if is_there else tmp_path / "none")
    suite.makepyfile(
        "import pytest, skips\ndef test_table(): pytest.skip(f'no {skips.SHARED_DATA / \"table\"}')"
    )
    expected = {"failed": 1} if is_there else {"skipped": 1}
    suite.runpytest().assert_outcomes(**expected)


CRASHES = """
import os, time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(12))
def test_many(number):
    time.sleep(0.02)
    crashed = Path({file!r})
    if number == 7 and not crashed.exists():
        crashed.touch()
        os._exit(3)
"""
GROUPED = """
import crashed_processes
import pytest

def pytest_configure(config):
    config.pluginmanager.register(crashed_processes)

def pytest_collection_modifyitems(items):
    for number, item in enumerate(items):
        item.add_marker(pytest.mark.xdist_group(str(number // 2)))
"""


@pytest.mark.slow
def test_a_process_that_ends_early_is_replaced_and_not_waited_for(pytester):
    pytester.makeconftest(GROUPED)
    pytester.makepyfile(CRASHES.format(file=str(pytester.path / "crashed")))
    helpers = Path(crashed_processes.__file__).parent
    options = ["--numprocesses=2", "--dist=loadgroup", "--no-loadscope-reorder"]
    done = pytester.runpytest_subprocess(*options, "-o", f"pythonpath={helpers}", timeout=300)
    done.stdout.fnmatch_lines(["*gw? (process *) ended with 3"])
    # The test during which it ended is run once more.
    done.assert_outcomes(passed=12, failed=1)
