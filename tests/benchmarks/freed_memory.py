"""Time steps of a CPU process that keeps the memory of freed tensors, and of one that does not.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/freed_memory.py``. A training step is forward,
backward, SGD and zero_grad of a supernet on the path of the step; a scoring pass recalibrates and
scores the copy of that path. Both in channels_last, on a batch that lies ready. How freed memory is
treated holds for a whole process, so that each contender has one of its own; rounds interleave them
in turning order, and medians are compared, because other work on the machine comes and goes. A page
fault is a page that the system has to find and clear.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

import numpy as np
from rounds import time_in_turns

Step = Callable[[int], object]
"""One step on the path of a number."""

RETURNED, KEPT = "returned", "kept"


def training(options: argparse.Namespace) -> Step:
    """Return training steps of the supernet."""
    import torch
    from step import training_module

    from nni_spos.supernet import SinglePathModule

    supernet, prior, batch = _parts(options)
    module = SinglePathModule(training_module(supernet), prior)
    # Of its trainer, the module reads the step only.
    module.trainer = SimpleNamespace(global_step=0)
    optimizer: torch.optim.Optimizer = module.configure_optimizers()

    def step(number: int) -> None:
        module.trainer.global_step = number
        module.training_step(batch, 0).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def scoring(options: argparse.Namespace) -> Step:
    """Return scoring passes of the supernet's paths."""
    from nni_spos.modules.subnet import extract_subnet
    from nni_spos.scoring.evaluation import score
    from nni_spos.scoring.recalibration import recalibrate

    supernet, prior, batch = _parts(options)

    def step(number: int) -> None:
        subnet = extract_subnet(supernet, prior.path(number))
        recalibrate(subnet, [batch])
        score(subnet, [batch])

    return step


STAGES = {"train": training, "score": scoring}


def _parts(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    import torch

    from nni_spos.path import PathSpace
    from nni_spos.priors import UniformPrior
    from nni_spos.spaces import Form, build_space
    from nni_spos.supernet import SinglePathOneShot

    torch.manual_seed(0)
    size = options.image_size
    shape = {"num_classes": 10, "in_channels": 3, "input_size": size}
    space = build_space(options.space, {}, Form.SUPERNET, **shape)
    supernet = SinglePathOneShot().mutate_model(space).to(memory_format=torch.channels_last)
    prior = UniformPrior(PathSpace.from_model_space(supernet), seed=0)
    images = torch.randn(options.batch_size, 3, size, size)
    labels = torch.randint(10, (options.batch_size,))
    return supernet, prior, (images.to(memory_format=torch.channels_last), labels)


def serve(name: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Do the step of each number that comes, and answer with page faults and peak memory."""
    from nni_spos.process.freed_memory import keep_freed_memory

    if name == KEPT:
        keep_freed_memory()
    do = STAGES[options.stage](options)
    while (number := pipe.recv()) is not None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        do(number)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pipe.send((usage.ru_minflt - before, usage.ru_maxrss * 1024))


@contextlib.contextmanager
def contenders(options: argparse.Namespace) -> Iterator[dict[str, Connection]]:
    """Start a process for each contender; at the end they are told to stop."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in (RETURNED, KEPT):
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(name, options, theirs), daemon=True).start()
        theirs.close()
    yield pipes
    for pipe in pipes.values():
        pipe.send(None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return medians of seconds and page faults a step, peak memory, and the ratio of times."""
    answers: dict[str, list[tuple[int, int]]] = {RETURNED: [], KEPT: []}
    with contenders(options) as pipes:

        def ask(name: str, number: int) -> None:
            pipes[name].send(number)
            answers[name].append(pipes[name].recv())

        steps = {name: (lambda number, name=name: ask(name, number)) for name in pipes}
        seconds = time_in_turns(steps, options.paths, options.repeats, lambda: None, _progress)
    ratios = np.array(seconds[RETURNED]) / np.array(seconds[KEPT])
    return {
        "settings": vars(options),
        "seconds": {name: float(np.median(times)) for name, times in seconds.items()},
        "page_faults": {
            name: float(np.median([faults for faults, _ in found[options.paths :]]))
            for name, found in answers.items()
        },
        "peak_memory_bytes": {name: found[-1][1] for name, found in answers.items()},
        "times_faster": {
            "quartile_1": float(np.quantile(ratios, 0.25)),
            "median": float(np.median(ratios)),
            "quartile_3": float(np.quantile(ratios, 0.75)),
        },
    }


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stage", choices=STAGES, default="train")
    parser.add_argument("--space", default="nasbench_macro")
    parser.add_argument("--image-size", type=int, default=32, help="pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--paths", type=int, default=8, help="paths that the rounds go through")
    parser.add_argument("--repeats", type=int, default=24, help="timed rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if min(options.image_size, options.batch_size, options.paths, options.repeats) < 1:
        parser.error("numbers must be at least 1.")

    from nni_spos.process.freed_memory import keep_freed_memory

    if not keep_freed_memory():
        parser.error("freed memory cannot be kept here, or the environment says otherwise.")
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in found["settings"].items()))
    print(f"{'freed memory':<14}{'seconds':>9}{'page faults':>13}{'peak MB':>9}")
    for name, median in found["seconds"].items():
        faults, peak = found["page_faults"][name], found["peak_memory_bytes"][name]
        print(f"{name:<14}{median:>9.3f}{faults:>13,.0f}{peak / 1e6:>9,.0f}")
    low, median, high = found["times_faster"].values()
    print(f"times faster on the same path: {median:.3f} (quartiles {low:.3f} and {high:.3f})")


if __name__ == "__main__":
    main()
