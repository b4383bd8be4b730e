"""Whether an error is what a path does, or trouble of the machine, of its files or of our code.

A path fails only for the former. All else would fail the next path too, or none at another time:
it is no result of a search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from nni_spos.errors import NOT_FINITE, FailedPathError, NotFiniteError, SposError, one_line
from nni_spos.tasks.base import LOSS
from nni_spos.values import not_finite

UNDEFINED = "the task computes no finite number from outputs that are finite"

_OUT_OF_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
    "failed to map segment",
    "unable to mmap",
)
_OF_THE_MACHINE = (
    "cuda error",
    "start new thread",
    "resource temporarily unavailable",
    "too many open files",
    "no space left on device",
    "dataloader worker",
)
"""What libraries write, in small letters, into errors that have no class of their own."""

_NETWORK = "torch.nn.modules.module"
"""Where every call of a network passes through."""


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether there was too little memory, of the machine or of the GPU.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    True
    >>> is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, RuntimeError | ImportError) and _says(cause, _OUT_OF_MEMORY))
        for cause in _causes(problem)
    )


def is_of_the_machine(problem: BaseException) -> bool:
    """Whether memory, disk, GPU or operating system are the reason, whatever was run.

    >>> is_of_the_machine(PermissionError("runs/scores")), is_of_the_machine(ValueError("axis 4"))
    (True, False)
    """
    return is_out_of_memory(problem) or any(
        isinstance(cause, OSError)
        or (isinstance(cause, RuntimeError) and _says(cause, _OF_THE_MACHINE))
        for cause in _causes(problem)
    )


def is_of_the_path(problem: BaseException) -> bool:
    """Whether a path is to fail for an error of its evaluation.

    So it is if outputs are not finite, and with what a network raises while it runs; also with any
    other RuntimeError, which PyTorch raises for weights and shapes that do not fit.
    """
    if isinstance(problem, FailedPathError | NotFiniteError):
        return True
    if isinstance(problem, SposError) or is_of_the_machine(problem):
        return False
    return isinstance(problem, RuntimeError) or _passes_a_network(problem.__traceback__)


def raise_for_path(problem: Exception) -> None:
    """Raise FailedPathError if an error is what a path does; else return."""
    if is_of_the_path(problem):
        raise FailedPathError(named(problem)) from problem


def check_finite(results: Mapping[str, Any]) -> None:
    """Raise FailedPathError if a result of a path is not finite."""
    if found := describe_not_finite(results):
        raise FailedPathError(f"{NotFiniteError.__name__}: {found}")


def describe_not_finite(results: Mapping[str, Any]) -> str:
    """Return in words which results are not finite, and what that says; "" if all are.

    >>> describe_not_finite({"top1": float("nan"), "loss": float("nan")})
    'the outputs of the network are not finite: top1 = nan'
    >>> describe_not_finite({"r2": float("nan"), "loss": 0.5})
    'the task computes no finite number from outputs that are finite: r2 = nan'
    """
    found = not_finite(results)
    if not found:
        return ""
    is_of_outputs = LOSS.name not in results or not_finite({LOSS.name: results[LOSS.name]})
    what = NOT_FINITE if is_of_outputs else UNDEFINED
    return f"{what}: {found}"


def named(problem: BaseException) -> str:
    """Return an error in one line, with its class.

    >>> named(KeyError("a"))
    "KeyError: 'a'"
    """
    text = one_line(str(problem))
    if isinstance(problem, FailedPathError):
        return text
    return ": ".join(filter(None, (type(problem).__name__, text)))


def explain(problem: BaseException, path: Mapping[str, Any]) -> str:
    """Return in one line what keeps a path from its result, and is not what it does.

    Parameters
    ----------
    problem
        What was raised.
    path
        Label to choice; it is named if it alone needs more memory than there is.
    """
    if not is_out_of_memory(problem):
        return named(problem)
    return f"there is too little memory for the path '{shown_path(path)}' ({named(problem)})"


def shown_path(path: Mapping[str, Any]) -> str:
    """Return the choices of a path.

    >>> shown_path({"layer_1": "k3", "layer_2": "xcep"})
    'k3 xcep'
    """
    return " ".join(map(str, path.values()))


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and those that it was raised for."""
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        yield problem
        seen.add(id(problem))
        hidden = problem.__suppress_context__
        problem = problem.__cause__ or (None if hidden else problem.__context__)


def _says(problem: BaseException, signs: tuple[str, ...]) -> bool:
    text = str(problem).lower()
    return any(sign in text for sign in signs)


def _passes_a_network(trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == _NETWORK:
            return True
        trace = trace.tb_next
    return False


def raise_if_cuda_is_lost(problem: Exception) -> None:
    """Raise an error after which this process cannot use the GPU any more, for any path."""
    if str(problem).startswith("CUDA error"):
        raise problem
