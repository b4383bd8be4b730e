"""Programs in forks of the process that tests: they need not import PyTorch and NNI again."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import nni.nas.nn.pytorch  # noqa: F401  a program that needs it has it already
import torch


def run_program(file: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Do what ``subprocess.run([sys.executable, file, *arguments])`` does, with captured output.

    The program gets the modules that this process has imported, and their state.
    """
    command = [str(file), *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            # Whatever happens, this process must not go on as a second one that tests.
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                code = _run(command)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
                code = 1
            os._exit(code)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        errors.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return subprocess.CompletedProcess(command, code, output.read(), errors.read())


def _run(command: list[str]) -> int:
    # OpenMP's threads, if there were any, are not in a fork.
    torch.set_num_threads(1)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                return end.code or 0
            print(end.code, file=sys.stderr)
            return 1
    return 0
