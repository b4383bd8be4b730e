from __future__ import annotations

from pathlib import Path

import pytest
from small_report import Run, write_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A small search with its recipe."""
    return write_run(tmp_path / "work")
