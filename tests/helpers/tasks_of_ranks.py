"""What the processes of `test_launch.py` do; light, since each imports it."""

from __future__ import annotations

import os
import signal
import time

import torch

from nni_spos.errors import DataError


def meet():
    torch.distributed.init_process_group("gloo")
    torch.distributed.barrier()
    return int(os.environ["RANK"])


def sum_of_ranks(offset):
    tensor = torch.tensor(meet() + offset)
    torch.distributed.all_reduce(tensor)
    return {"sum": tensor}


def fail_in_one():
    if meet() == 1:
        raise DataError("image 7 is damaged.")
    torch.distributed.barrier()


def die_in_one():
    if meet() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


def write_and_wait(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(600)
