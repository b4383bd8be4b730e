"""Output that is closed, full or not read any more: the work is done, and the exit code says it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nni_spos.display.streams import tolerant_streams
from nni_spos.evolution import Candidate, Journal, State

COMMAND = [sys.executable, "-W", "ignore", "-m", "nni_spos.cli"]
LIST = ["results", "run", "--output", "best.json"]
"""Prints a table, then writes a file, then prints its name."""

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal("run/search.jsonl", {"search": {"objective": "top1"}})
    for i in range(20):
        path = {"a": f"k{i}"}
        journal.append(Candidate(path, i, 0, {"flops": i}, State.DONE, {"top1": 50.0 + i}))
    return tmp_path


def run(arguments, redirections="", **options):
    """Run a command as a shell does that redirects its output."""
    script = f'exec "$@" {redirections}'
    command = ["sh", "-c", script, "sh", *COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.spawn
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "redirections",
    [
        ">&-", "2>&-", "<&-", ">&- 2>&- <&-",
        pytest.param("2>/dev/full", marks=needs_full),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_written_change_nothing(
    folder, monkeypatch, redirections, unbuffered
):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    assert run(LIST, redirections).returncode == 0
    assert json.loads(Path("best.json").read_text()) == {"a": "k19"}
    assert run(["results", "missing"], redirections).returncode == 2
    assert run(["no-such-command"], redirections).returncode == 2


@pytest.mark.spawn
@needs_full
@pytest.mark.parametrize("arguments", [LIST, ["--help"]])
def test_output_on_a_full_disk_is_an_error(folder, arguments):
    done = run(arguments, ">/dev/full")
    assert done.returncode == 2
    assert done.stderr == "OSError: the output cannot be written (No space left on device).\n"
    assert Path("best.json").exists() == (arguments == LIST)
    assert run(arguments).returncode == 0


@pytest.mark.spawn
@pytest.mark.parametrize("arguments", [LIST, ["--help"], ["results", "run", "--top", "15"]])
def test_output_that_nobody_reads_ends_nothing(folder, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert Path("best.json").exists() == (arguments == LIST)


@pytest.mark.spawn
def test_an_error_counts_more_than_a_closed_pipe(folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "results", "missing"],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


PROGRAM = """
import os, sys
from nni_spos.display.streams import tolerant_streams
with tolerant_streams() as written:
    for _ in range(1000):
        print("a line of output" * 10)
        print("a line of a log" * 10, file=sys.stderr)
    handle = os.open("new", os.O_RDWR | os.O_CREAT)
    print("more", flush=True)
    print("more", file=sys.stderr, flush=True)
os.write(handle, b"content")
"""


@pytest.mark.parametrize("redirections", ["", ">&- 2>&- <&-", ">&-", "2>&-"])
def test_messages_get_into_no_file(tmp_path, redirections):
    """A file that is opened after a stream was closed must not get the stream's number."""
    script = f'exec "$@" {redirections}'
    command = ["sh", "-c", script, "sh", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    assert (tmp_path / "new").read_bytes() == b"content"


def test_streams_are_as_before_afterwards(capsys):
    before = sys.stdout, sys.stderr

    def fail():
        with tolerant_streams():
            print("inside")
            raise KeyError("planned")

    with pytest.raises(KeyError, match="planned"):
        fail()
    assert (sys.stdout, sys.stderr) == before
    print("after")
    assert capsys.readouterr().out == "inside\nafter\n"
