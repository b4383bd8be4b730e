"""Real NNI experiments in a home of their own, on this machine's loopback interface."""

import sys
from pathlib import Path

import pytest
from study import Study

# The published table of the search benchmark.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    study = Study(tmp_path)
    yield study
    study.end()
