"""A few kills of every kind; ``python tests/faults/kills.py`` makes more of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from work import TARGETS

SCRIPT = Path(__file__).with_name("kills.py")


@pytest.mark.nni
def test_a_killed_run_is_the_same_in_the_end(tmp_path):
    # A process of its own, for it forks: a fork of one whose threads have computed would hang.
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--kills", str(len(TARGETS))]
    done = subprocess.run(
        [*command, "--seed", "1", "--folder", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert "{" in done.stdout, done.stderr
    figures = json.loads(done.stdout[done.stdout.index("{") :])
    assert figures["problems"] == []
    assert figures["kills"] == dict.fromkeys(TARGETS, 1)
    assert figures["searches"] >= 2
    assert figures["finished_candidates_lost"] == 0
    assert figures["evaluated_twice"] == 0
    assert done.returncode == 0
