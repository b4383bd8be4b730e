"""How many threads a training uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

SMALL = 100e6
"""Multiply-adds of a batch in forward below which one thread trains.

Two train a network of that size 1.25 times as fast on an idle machine, and a third as fast beside
processes that keep the cores busy: threads wait for each other at every operation
(``tests/benchmarks/busy.py``). Twice the work gains 1.4, and loses more.
"""


@contextlib.contextmanager
def threads_for(multiply_adds: float, batch_size: int) -> Iterator[None]:
    """Let PyTorch use one thread for a small network, unless ``OMP_NUM_THREADS`` is set.

    The number follows from the network alone, and not from how busy the machine is: it decides how
    sums are rounded, so that the same training would not give the same weights again.

    Parameters
    ----------
    multiply_adds
        Of the network, for one image.
    batch_size
        Images in a step.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" not in os.environ and multiply_adds * batch_size < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
