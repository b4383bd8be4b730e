"""The benchmark scripts run; what they measure is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from programs import run_program

FOLDER = Path(__file__).with_name("benchmarks")
MACRO = Path(__file__).parents[2] / "shared" / "data" / "nas-bench-macro_cifar10.json"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("step.py", "--repeats 1 --paths 1 --batch-size 2 --threads 1"),
        (
            "data_parallel.py",
            "--repeats 1 --paths 1 --batch-size 2 --image-size 32 --space channels",
        ),
        ("busy.py", "--repeats 1 --paths 1 --steps 1 --batch-size 2 --image-size 16 --busy 1"),
        ("freed_memory.py", "--repeats 1 --paths 1 --batch-size 2"),
        ("freed_memory.py", "--repeats 1 --paths 1 --batch-size 2 --stage score"),
        ("prior.py", "--repeats 1 --paths 1000"),
        (
            "population.py",
            "--data digits --epochs 1 --limit 1G --population 4 --generations 2 --images 250 "
            "--repeats 1 --sample 2",
        ),
        ("complete.py", "--prefix 7 --alone 1 --images 20"),
        ("growth.py", "--candidates 500 --trials 20 --algorithms random"),
        ("latency.py", "--quick --rounds 1 --repeats 1 --paths 3"),
    ],
)
def test_it_runs(costs_built_here, script, arguments):
    done = run_program(FOLDER / script, *arguments.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.slow
def test_the_experiment_benchmark(alone):
    """A process of its own, for it measures those of an experiment under nnictl."""
    arguments = "--data digits --population 2 --generations 1 --images 250 --concurrency 2 --json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", FOLDER / "experiment.py", *arguments.split()],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not MACRO.is_file(), reason=f"needs {MACRO.name}")
def test_the_search_benchmark(tmp_path):
    plot = tmp_path / "plots" / "search.png"
    arguments = ["--seeds", "2", "--evaluations", "60", "--json", "--plot", plot]
    done = run_program(FOLDER / "search.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert plot.read_bytes().startswith(b"\x89PNG")
    content = json.loads(done.stdout)
    # Published: no network is better than 93.13 %, and 7.7 to 105.7 MFLOPs are all there are.
    assert [round(problem["optimum"], 2) for problem in content.values()] == [93.13, 92.31, 91.94]
    for problem in content.values():
        curves = problem["contenders"]
        for curve in curves.values():
            assert len(curve["mean"]) == 60
            assert curve["mean"] == sorted(curve["mean"], reverse=True)
            assert curve["mean"][-1] >= 0
            for low, mean, high in zip(curve["low"], curve["mean"], curve["high"], strict=True):
                assert low - 1e-9 <= mean <= high + 1e-9
        # Until the second generation they are the same.
        assert curves["evolution"]["mean"][:50] == curves["random"]["mean"][:50]


def test_the_search_benchmark_needs_a_table(tmp_path):
    done = run_program(FOLDER / "search.py", "--table", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "none: no such file; it is published with NAS-Bench-Macro."
    )
