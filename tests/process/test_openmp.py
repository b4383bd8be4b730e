"""Waiting threads soon sleep, in all processes, unless the user says otherwise."""

import os
import subprocess
import sys

import pytest

from nni_spos.process.openmp import SPINS, VARIABLES, limit_spinning

PRINT = "import os, sys; import {}; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"


def environment(**given):
    return {k: v for k, v in os.environ.items() if k not in VARIABLES} | given


@pytest.mark.parametrize("module", ["nni_spos", "nni_spos.cli"])
def test_it_is_set_before_pytorch_is_there(module):
    command = [sys.executable, "-W", "ignore", "-c", PRINT.format(module)]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(SPINS), "False"]


def test_processes_that_are_started_inherit_it():
    inner = "import os; print(os.environ['GOMP_SPINCOUNT'])"
    outer = f"import nni_spos, subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    command = [sys.executable, "-W", "ignore", "-c", outer]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(SPINS)


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_set_stays(name):
    given = environment(**{name: "7"})
    before = dict(given)
    assert not limit_spinning(given)
    assert given == before
    free = environment()
    assert limit_spinning(free)
    assert free["GOMP_SPINCOUNT"] == str(SPINS)
