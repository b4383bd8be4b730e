"""Real NNI experiments in a home of their own, on this machine's loopback interface."""

import sys
from pathlib import Path

import pytest
import torch
from nni_home import Study

# The published table of the search benchmark.
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))


@pytest.fixture
def one_thread(monkeypatch):
    """Sums depend on the number of threads, and the trials' results are compared exactly."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    study = Study(tmp_path)
    yield study
    study.end()
