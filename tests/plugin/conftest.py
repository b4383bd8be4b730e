"""The example, installed by pip, and commands that find it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder into which pip has installed the example."""
    folder = tmp_path_factory.mktemp("plugin")
    ignored = shutil.ignore_patterns("__pycache__", "test_*.py")
    shutil.copytree(Path(__file__).parent, folder / "source", ignore=ignored)
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", "-q", *offline]
    subprocess.run([*command, "--target", folder / "site", folder / "source"], check=True)
    return folder / "site"


@pytest.fixture
def run(installed, tmp_path):
    """Run commands in the folder of a recipe, by default with the plug-in in Python's path."""

    def run(*arguments, site=installed):
        path = os.pathsep.join(map(str, filter(None, (site, ROOT))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "nni_spos.cli", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    return run
