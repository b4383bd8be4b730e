"""How the threads of an operation wait for each other."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which users say this themselves, of all OpenMP and of its libraries."""

SPINS = 30_000
"""Of a waiting thread until it sleeps; by default about ten times as many.

With fewer a small network trains more slowly on an idle machine; with many more it can
take many times as long on a busy one (``tests/benchmarks/busy.py``).
"""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Let threads that wait for others soon sleep, in this process and in all that it starts.

    By default they spin: where other processes need the cores, it is the thread that the others
    wait for that gets none. An OpenMP library reads this when it is loaded, so that it has no
    effect in a process that has imported PyTorch before. It is GNU's, which PyTorch brings on
    Linux; others do not know the variable.

    Parameters
    ----------
    environment
        Where it is written.

    Returns
    -------
    Whether it is done: not where the user has set one of `VARIABLES`.
    """
    if any(name in environment for name in VARIABLES):
        return False
    environment["GOMP_SPINCOUNT"] = str(SPINS)
    return True
