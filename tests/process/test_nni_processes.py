"""The NNI manager above a process, found without asking when processes began."""

import json
import subprocess
import sys

import pytest

from nni_spos.process.nni_processes import manager_process

FIND = """
import json, psutil
from nni_spos.process.nni_processes import manager_process
own, real = psutil.Process().pid, psutil.Process.create_time
# The clock was set back: this process is older than those that started it.
psutil.Process.create_time = lambda self: real(self) + (0 if self.pid == own else 9)
found = manager_process()
print(json.dumps(None if found is None else found.pid))
"""
START = "import os, subprocess, sys; subprocess.run(['sh', '-c', sys.argv[2]]); print(os.getpid())"


@pytest.mark.parametrize(("name", "is_manager"), [("nni_node/main.js", True), ("main.py", False)])
def test_the_manager_is_found_through_a_shell_whatever_the_clock_says(name, is_manager):
    command = f"\"{sys.executable}\" -W ignore -c '{FIND}'; true"
    done = subprocess.run(
        [sys.executable, "-c", START, name, command], capture_output=True, text=True, check=True
    )
    found, pid = map(json.loads, done.stdout.split())
    assert found == (pid if is_manager else None)


def test_without_a_manager_there_is_none():
    assert manager_process() is None
