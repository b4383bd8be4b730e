"""Real NNI experiments in a home of their own, on this machine's loopback interface."""

from pathlib import Path

import pytest
from study import Study


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    study = Study(tmp_path)
    yield study
    study.end()
