"""Memory of freed tensors, kept by the process for the next ones."""

from __future__ import annotations

import ctypes
import os
import platform

MALLOPT = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_TOP_PAD": (-2, 64 << 20)}
"""Parameters of glibc's ``mallopt`` and their values: no block is mapped on its own, none is given
back, and the heap grows by 64 MiB and what is asked for."""

VARIABLES = ("MALLOC_MMAP_", "MALLOC_TRIM_", "MALLOC_TOP_", "GLIBC_TUNABLES")
"""Environment variables, or how their names begin, by which users set this themselves."""


def keep_freed_memory() -> bool:
    """Keep the memory of freed tensors in this process, since the next step needs as much again.

    glibc gives every block above 32 MiB back to the system when it is freed, and smaller ones from
    the end of the heap. A step that needs them again waits until the system has found and cleared
    each page: a quarter of a training step, see ``tests/benchmarks/freed_memory.py``. Peak memory
    was up to a twentieth higher for trainings and a fifth for scoring; between steps the process
    holds what it needed at most.

    Returns
    -------
    Whether it is done: not on systems without glibc, nor where environment variables such as
    ``MALLOC_TRIM_THRESHOLD_`` say what to do.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(VARIABLES) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    answers = [mallopt(parameter, value) for parameter, value in MALLOPT.values()]
    return all(answer == 1 for answer in answers)
