"""The log of a worker, and what a trial says of a worker that ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from trained_recipes import write_untrained
from worker_requests import score_with_worker

from nni_spos.errors import EvaluatorError
from nni_spos.worker import end as worker_end
from nni_spos.worker.client import identify, worker_folder
from nni_spos.worker.place import WorkerFolder


@pytest.fixture
def recipe(tmp_path):
    recipe = write_untrained(tmp_path)
    recipe.checkpoint.write_bytes(b"weights")
    return recipe


FULL_DISK = """
import os, sys
from nni_spos.worker import service as worker, reception as worker_reception
worker._survive_full_disk()
worker_reception.log("listens")
print("anything", file=sys.stderr)
os.write(1, b"goes on")
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")
def test_a_log_on_a_full_disk_ends_no_worker(tmp_path):
    for log, content in (("/dev/full", None), (tmp_path / "log", "listens\nanything\n")):
        with open(log, "w") as stderr:
            command = [sys.executable, "-W", "ignore", "-c", FULL_DISK]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=False)
        assert (done.returncode, done.stdout) == (0, b"goes on")
        assert content is None or (tmp_path / "log").read_text().endswith(content)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda log: log.symlink_to(log.with_name("thesis.tex")), "is a link"),
        (Path.mkdir, "is not a regular file"),
        (os.mkfifo, "is not a regular file"),
    ],
)
def test_a_log_that_is_not_one_is_an_error_in_a_line(recipe, make, reason):
    log = worker_folder(recipe, identify(recipe)).log
    log.parent.mkdir(parents=True)
    make(log)
    with pytest.raises(EvaluatorError, match=rf"cannot be started: .*worker\.log: {reason}"):
        score_with_worker(recipe, {"a": 1})
    assert not log.with_name("thesis.tex").exists()


def test_who_may_not_write_to_the_output_has_the_log_in_a_folder_of_his_own(tmp_path, monkeypatch):
    def mkdir(folder, *arguments, **options):
        if folder.name == "output":
            raise PermissionError(13, "Permission denied", str(folder))
        real(folder, *arguments, **options)

    real = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", mkdir)
    place = WorkerFolder(tmp_path / "output", tmp_path / "private" / "key").make()
    assert place.log == tmp_path / "private" / "key" / "worker.log"


def test_what_the_system_killed_for_memory_is_said(monkeypatch):
    monkeypatch.setattr(worker_end, "num_killed_for_memory", lambda: 3)
    log = "The end of x: date worker 7: holds the supernet"
    assert "want of memory" in worker_end.describe_end(log, 2)
    assert "SIGKILL" in worker_end.describe_end(log, 3)
    for words in ("ends: MemoryError: ", "is ended by a trial: it has said nothing"):
        assert worker_end.describe_end(f"{log} | date worker 7: {words}", 3) == ""
    assert worker_end.describe_end("x: No module named y", 3) == ""


def test_a_worker_that_does_not_start_is_an_error(recipe, monkeypatch):
    monkeypatch.setattr("nni_spos.worker.start.WORKER_MODULE", "nni_spos.no_such")
    with pytest.raises(EvaluatorError, match=r"did not start, 2 times.*No module named"):
        score_with_worker(recipe, {"a": 1})
