"""The benchmark scripts run; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("benchmarks")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("step.py", "--repeats 1 --paths 1 --batch-size 2 --threads 1"),
        ("prior.py", "--repeats 1 --paths 1000"),
        (
            "population.py",
            "--data digits --epochs 1 --limit 1G --population 4 --generations 2 --images 250 "
            "--repeats 1 --sample 2",
        ),
        ("complete.py", "--prefix 7 --alone 1 --images 20"),
        (
            "experiment.py",
            "--data digits --population 2 --generations 1 --images 250 --concurrency 2",
        ),
        ("latency.py", "--quick --rounds 1 --repeats 1 --paths 3"),
    ],
)
def test_it_runs(script, arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", FOLDER / script, *arguments.split(), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
