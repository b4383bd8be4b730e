"""Recipes with and without a trained supernet, and what commands do with them."""

import shutil
import tempfile

import pytest
from small_experiments import FakeManager, write_recipe
from trained_recipes import contents, write_trained

from nni_spos.cli import main


@pytest.fixture
def recipe_file(tmp_path):
    return write_recipe(tmp_path)


@pytest.fixture
def manager():
    manager = FakeManager()
    yield manager
    manager.close()


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    write_trained(folder)
    return folder


@pytest.fixture
def folder(trained_folder, tmp_path, monkeypatch):
    """A recipe with a supernet; the working directory."""
    shutil.copytree(trained_folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def refused(folder, capsys):
    """Run a command that must fail, and return its line; the folder must stay as it is."""

    def run(*arguments: str) -> str:
        before = contents(folder)
        code = main(list(arguments))
        output = capsys.readouterr()
        assert code == 2
        assert output.out == ""
        lines = output.err.splitlines()
        assert len(lines) == 1, output.err
        assert contents(folder) == before
        return lines[0]

    return run


@pytest.fixture(scope="session")
def temporary_files(tmp_path_factory):
    return str(tmp_path_factory.mktemp("t"))


@pytest.fixture(autouse=True)
def own_temporary_files(temporary_files, monkeypatch):
    """Let workers and trials meet in a folder of the tests, also in other processes."""
    monkeypatch.setenv("TMPDIR", temporary_files)
    monkeypatch.setattr(tempfile, "tempdir", temporary_files)
