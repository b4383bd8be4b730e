"""A recipe with a retrained network, which no test changes."""

import shutil
import sys

import pytest
from networks_to_export import write_retrained

from nni_spos.cli import main


@pytest.fixture(scope="session")
def retrained_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("retrained")
    write_retrained(folder)
    return folder


@pytest.fixture
def work(retrained_folder, tmp_path, monkeypatch):
    """A copy of it, the working directory."""
    shutil.copytree(retrained_folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "work"
    sys.modules.pop("memory_format", None)


@pytest.fixture
def export(work, capsys):
    """Run the command; return its lines, or of a refusal its one line."""

    def run(*arguments: str, code: int = 0):
        before = sorted(x for x in work.rglob("*") if "__pycache__" not in x.parts)
        assert main(["export", *arguments]) == code, capsys.readouterr().err
        output = capsys.readouterr()
        if not code:
            return output.out.splitlines()
        after = sorted(x for x in work.rglob("*") if "__pycache__" not in x.parts)
        assert after == before, "something is left"
        (line,) = output.err.splitlines()
        return line

    return run
