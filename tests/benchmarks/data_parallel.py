"""Time one training step of two processes: how the gradients of a sampled path are averaged.

Run ``python tests/benchmarks/data_parallel.py``. A step is forward, backward, averaging of
gradients over the processes (gloo, this machine's CPU), SGD with momentum and weight decay, and
zero_grad, on a batch that lies ready. All contenders train the same paths of `ShuffleNetV2Space`
with the BatchNorm of a supernet (``affine=False``), in channels_last:

- stand-alone: networks of single paths in PyTorch's DistributedDataParallel, which has no unused
  parameters to care for.
- ours: the supernet, with `average_gradients` of the sampled weights after the backward pass.
- find unused: the supernet in DistributedDataParallel with ``find_unused_parameters=True``.
- alone: the supernet, with no averaging at all; what is left is what processes do to each other.

``--space channels`` takes the space of channel numbers, of which ours sends slices. Rounds
interleave the contenders in turning order, and all processes begin and end a step together;
medians are compared, because other work on the machine comes and goes. Processes that share one
core show the work that is done, and not how much of it could be hidden behind the backward pass.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from rounds import time_in_turns
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

Step = Callable[[int], None]
"""One training step on the path of a number."""

OVER = "stand-alone"


class Loss(nn.Module):
    """A network with its loss, so that a wrapper sees the whole forward pass."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(self.network(images), labels)


class Bench:
    """What the contenders of a process share: space, paths and a batch of its own."""

    def __init__(self, options: argparse.Namespace):
        from nni_spos.mutables import SCALES
        from nni_spos.path import PathSpace
        from nni_spos.priors import UniformPrior
        from nni_spos.spaces import ShuffleNetV2Space

        torch.manual_seed(distributed.get_rank())
        arguments = (
            {"blocks": "k3", "channel_scales": SCALES} if options.space == "channels" else {}
        )
        self.build = lambda: ShuffleNetV2Space(affine=False, **arguments)
        self.freeze = lambda path: ShuffleNetV2Space.frozen_factory(path)(affine=False, **arguments)
        size = options.image_size
        images = torch.randn(options.batch_size, 3, size, size)
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (options.batch_size,))
        prior = UniformPrior(PathSpace.from_model_space(self.build()), seed=0)
        self.paths = [prior.path(step) for step in range(options.paths)]

    def stand_alone(self) -> Step:
        """Steps of one network for each path."""
        steps = []
        for path in self.paths:
            module = Loss(self.freeze(path)).to(memory_format=torch.channels_last)
            steps.append(self._prepare(module, DistributedDataParallel(module)))
        return lambda number: steps[number]()

    def ours(self) -> Step:
        """Steps of the supernet as we train it."""
        from nni_spos.mutables import ActiveSlices
        from nni_spos.training.gradients import average_gradients

        def average(module: nn.Module) -> Callable[[], None]:
            slices = ActiveSlices(module)
            return lambda: average_gradients(module.parameters(), slices)

        return self._supernet(lambda module: module, average)

    def find_unused(self) -> Step:
        """Steps of the supernet in PyTorch's wrapper."""
        return self._supernet(
            lambda module: DistributedDataParallel(module, find_unused_parameters=True)
        )

    def alone(self) -> Step:
        """Steps of the supernet without any exchange."""
        return self._supernet(lambda module: module)

    def _supernet(
        self,
        wrap: Callable[[nn.Module], nn.Module],
        average: Callable[[nn.Module], Callable[[], None]] = lambda module: lambda: None,
    ) -> Step:
        from nni_spos.modules.active_path import choice_units, set_path
        from nni_spos.supernet import SinglePathOneShot

        module = Loss(SinglePathOneShot().mutate_model(self.build()))
        module.to(memory_format=torch.channels_last)
        units = choice_units(module)
        train = self._prepare(module, wrap(module), average(module))

        def step(number: int) -> None:
            set_path(units, self.paths[number])
            train()

        return step

    def _prepare(
        self, module: nn.Module, wrapped: nn.Module, average: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)

        def train() -> None:
            wrapped(self.images, self.labels).backward()
            average()
            optimizer.step()
            optimizer.zero_grad()

        return train


def measure(rank: int, port: int, options: argparse.Namespace, answers: Any) -> None:
    """Time the contenders as one of the processes; rank 0 hands on seconds by name."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=rank, world_size=options.processes)
    bench = Bench(options)
    steps = {
        OVER: bench.stand_alone(),
        "ours": bench.ours(),
        "find unused": bench.find_unused(),
        "alone": bench.alone(),
    }
    seconds = time_in_turns(
        steps,
        len(bench.paths),
        options.repeats,
        distributed.barrier,
        functools.partial(_progress, rank),
    )
    if rank == 0:
        answers.put(seconds)
    distributed.destroy_process_group()


def _progress(rank: int, line: str) -> None:
    if rank == 0:
        print(line, file=sys.stderr, flush=True)


def summarise(seconds: dict[str, list[float]]) -> dict[str, dict[str, list[float]]]:
    """Return quartiles of seconds, and of the ratios to stand-alone within each round."""
    base = np.array(seconds[OVER])
    rows = {name: np.array(values) for name, values in seconds.items()}
    return {
        "seconds": {name: _quartiles(values) for name, values in rows.items()},
        "ratio": {name: _quartiles(values / base) for name, values in rows.items()},
    }


def _quartiles(values: np.ndarray) -> list[float]:
    return [float(x) for x in np.quantile(values, (0.25, 0.5, 0.75))]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=16, help="timed rounds")
    parser.add_argument("--batch-size", type=int, default=4, help="of a process")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--paths", type=int, default=4, help="paths that the rounds go through")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--space", choices=("blocks", "channels"), default="blocks")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    started = multiprocessing.spawn(
        measure, (port, options, answers), options.processes, join=False
    )
    while not started.join(timeout=1) and answers.empty():
        pass
    summary = summarise(answers.get())
    while not started.join():
        pass
    if options.json:
        print(json.dumps({"settings": vars(options), **summary}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in vars(options).items()))
    print(f"{'one step':<14}{'seconds':>9}{'quartiles':>16}{'ratio':>9}{'quartiles':>16}")
    for name, times in summary["seconds"].items():
        cells = "".join(
            f"{median:>9.3f}{low:>9.3f}{high:>7.3f}"
            for low, median, high in (times, summary["ratio"][name])
        )
        print(f"{name:<14}{cells}")


if __name__ == "__main__":
    main()
