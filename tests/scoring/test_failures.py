"""What fails a path, and what is trouble that a search waits for."""

import errno

import pytest
import torch
from torch import nn

from nni_spos.errors import (
    MAX_LENGTH,
    CheckpointError,
    DataError,
    FailedPathError,
    NotFiniteError,
    PathError,
)
from nni_spos.scoring.failures import (
    check_finite,
    explain,
    is_of_the_machine,
    is_of_the_path,
    is_out_of_memory,
    named,
    raise_for_path,
)

PATH = {"a": "k3", "b": 1.0}


class Raises(nn.Module):
    def __init__(self, problem):
        super().__init__()
        self.problem = problem

    def forward(self, x):
        raise self.problem


def raised_in_a_network(problem):
    try:
        nn.Sequential(Raises(problem))(torch.zeros(1))
    except Exception as found:
        return found
    raise AssertionError("it returned")


def raised_for(cause, problem):
    try:
        raise problem from cause
    except Exception as found:
        return found


OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ImportError("libcublas.so: failed to map segment from shared object"),
    raised_for(MemoryError(), ValueError("cannot reshape")),
]
MACHINE = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EMFILE, "Too many open files"),
    PermissionError(errno.EACCES, "Permission denied"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("can't start new thread"),
    RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    raised_for(OSError(errno.EIO, "Input/output error"), RuntimeError("an image")),
]


@pytest.mark.parametrize("problem", [*OUT_OF_MEMORY, *MACHINE], ids=repr)
def test_trouble_of_the_machine(problem):
    for found in (problem, raised_in_a_network(problem)):
        assert is_of_the_machine(found)
        assert not is_of_the_path(found)
    assert is_out_of_memory(problem) == (problem in OUT_OF_MEMORY)


@pytest.mark.parametrize(
    "problem",
    [CheckpointError("x"), DataError("x"), PathError("x"), KeyError("x"), AssertionError("x")],
    ids=repr,
)
def test_trouble_of_ours(problem):
    assert not is_of_the_path(problem)
    assert not is_of_the_machine(problem)
    raise_for_path(problem)


@pytest.mark.parametrize(
    "problem",
    [KeyError("x"), AssertionError("x"), RecursionError("x"), AttributeError("x")],
    ids=repr,
)
def test_what_a_network_does(problem):
    found = raised_in_a_network(problem)
    assert is_of_the_path(found)
    with pytest.raises(FailedPathError, match=type(problem).__name__):
        raise_for_path(found)


@pytest.mark.parametrize(
    "problem",
    [NotFiniteError("x"), FailedPathError("x"), RuntimeError("mat1 and mat2 shapes")],
    ids=repr,
)
def test_what_fails_a_path_wherever_it_is_raised(problem):
    assert is_of_the_path(problem)


def test_an_error_that_is_the_cause_of_itself_is_looked_at_once():
    problem = ValueError("x")
    problem.__cause__ = RuntimeError("y")
    problem.__cause__.__cause__ = problem
    assert not is_of_the_machine(problem)


def test_one_line_of_words():
    assert named(MemoryError()) == "MemoryError"
    assert named(FailedPathError("ValueError: x")) == "ValueError: x"
    assert explain(ValueError("a\nb"), PATH) == "ValueError: a b"
    assert explain(MemoryError(), PATH) == (
        "there is too little memory for the path 'k3 1.0' (MemoryError)"
    )
    assert len(named(ValueError("x" * 10_000))) < MAX_LENGTH + 20


def test_results():
    check_finite({"top1": 1.0, "loss": 2.0})
    with pytest.raises(FailedPathError, match=r"NotFiniteError: .*not finite: loss = nan"):
        check_finite({"top1": 1.0, "loss": float("nan")})
