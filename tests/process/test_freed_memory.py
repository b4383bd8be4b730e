"""Freed memory is used again by the stages that need as much in every step."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nni_spos.process import freed_memory
from nni_spos.process.freed_memory import keep_freed_memory

STEP = 152 * 2**20
"""Bytes of the tensors of a step of `PROGRAM`."""

PROGRAM = """
import resource, sys
import torch
from nni_spos.process.freed_memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
counts = []
for _ in range(30):
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    layers = [torch.empty(n * 2**20, dtype=torch.uint8).fill_(1) for n in (64, 40, 48)]
    del layers
print(counts[-1] - counts[-2], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith(freed_memory.VARIABLES)]:
        monkeypatch.delenv(name)
    # PyTorch would ask for large pages, of which there are few faults.
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)


@pytest.mark.spawn
@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_a_step_takes_the_pages_of_the_ones_before():
    def run(name):
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return [int(word) for word in done.stdout.split()]

    (returned, least), (kept, peak) = run("returned"), run("kept")
    assert returned >= STEP // os.sysconf("SC_PAGE_SIZE")
    assert kept < returned / 100
    # Holes between blocks are not all of use, but they do not add up.
    assert peak < least + 4 * STEP


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"])
def test_what_the_environment_says_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


@pytest.mark.parametrize("libc", [("", ""), ("musl", "1.2")])
def test_nothing_is_done_without_glibc(monkeypatch, libc):
    monkeypatch.setattr(freed_memory.platform, "libc_ver", lambda: libc)
    assert not keep_freed_memory()
