"""Processes that train together, forked from the one that tests: they need not import again."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback

import torch

CONTEXT = multiprocessing.get_context("fork")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def as_torchrun(rank, num_processes, port):
    """The variables that torchrun sets."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def as_srun(rank, num_processes, port):
    """The variables that SLURM sets, for tasks of one node, and the user."""
    return {
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
        "SLURM_STEP_NUM_TASKS": str(num_processes), "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_JOB_ID": "1234567", "MASTER_PORT": str(port),
    }  # fmt: skip


def run(function, *arguments, variables=as_torchrun, num_processes=2, timeout=120):
    """Return what a function of (rank, ...) returns in each process."""
    port = free_port()
    queue = CONTEXT.SimpleQueue()

    def work(rank):
        os.environ.update(variables(rank, num_processes, port))
        torch.set_num_threads(1)
        try:
            queue.put((rank, function(rank, *arguments), None))
        except BaseException:
            queue.put((rank, None, traceback.format_exc()))
        os._exit(0)

    processes = [CONTEXT.Process(target=work, args=(rank,)) for rank in range(num_processes)]
    for process in processes:
        process.start()
    try:
        answers = sorted((queue.get() for _ in processes), key=lambda answer: answer[0])
    finally:
        for process in processes:
            process.join(timeout)
            process.kill()
    problems = "".join(problem for _, _, problem in answers if problem)
    assert not problems, problems
    return [value for _, value, _ in answers]
