"""Time one training step: our supernet, the same paths as stand-alone networks, NNI's supernet.

Run ``python tests/benchmarks/step.py``. A step is forward, backward, SGD with momentum and weight
decay, and zero_grad on a batch that lies ready. There are three contenders:

- ours: `SinglePathModule` on `ShuffleNetV2Space`, in channels_last as we train it. It draws the
  path from `UniformPrior` and sets it inside the step.
- stand-alone: networks of single paths of the same space, with the supernet's BatchNorm
  (``affine=False``), in channels_last too.
- stock: NNI's ``RandomOneShot`` on NNI's ``ShuffleNetSpace(affine=False)``, contiguous as NNI
  trains it. Its path is given to it, so that drawing costs it nothing, but setting the path does.

Paths differ in FLOPs, so every round trains all three on the same path: the FLOPs of ours and of
stand-alone are equal by construction, not only in expectation. The networks are built ahead, and
each path is trained once before timing starts, so that momentum exists everywhere. Rounds
interleave the contenders in turning order, and medians are compared, because other work on the
machine comes and goes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from rounds import time_in_turns

if TYPE_CHECKING:
    from nni.nas.evaluator.pytorch import LightningModule
    from torch import Tensor, nn

    from nni_spos.path import Path

Step = Callable[[int], None]
"""One training step on the path of a number."""


@dataclass(frozen=True)
class Requirement:
    """A bound on the time of one contender divided by another's."""

    over: str
    under: str
    low: float = 0.0
    high: float = float("inf")

    def __str__(self) -> str:
        bound = f">= {self.low}" if self.low else f"<= {self.high}"
        return f"{self.over} / {self.under} {bound}"


REQUIREMENTS = (
    Requirement("ours", "stand-alone", high=1.05),
    Requirement("stock", "ours", low=1.25),
)


class Bench:
    """What the contenders share: the batch, the optimizer and the device.

    Parameters
    ----------
    batch_size
        Images in a batch.
    num_paths
        Different paths that the rounds go through.
    """

    def __init__(self, batch_size: int, num_paths: int):
        import torch

        from nni_spos.path import PathSpace
        from nni_spos.priors import UniformPrior
        from nni_spos.spaces import ShuffleNetV2Space

        torch.manual_seed(0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.images = torch.randn(batch_size, 3, 224, 224)
        self.labels = torch.randint(1000, (batch_size,), device=self.device)
        self.space = ShuffleNetV2Space()
        self.prior = UniformPrior(PathSpace.from_model_space(self.space), seed=0)
        self.paths = [self.prior.path(step) for step in range(num_paths)]

    def ours(self) -> Step:
        """Steps of our supernet."""
        from nni_spos.supernet import SinglePathModule, SinglePathOneShot

        SinglePathOneShot().mutate_model(self.space)
        module = SinglePathModule(training_module(self.space), self.prior)
        # Of its trainer, the module reads the step only.
        module.trainer = SimpleNamespace(global_step=0)
        train = self._prepare(module, channels_last=True)

        def step(number: int) -> None:
            module.trainer.global_step = number
            train(module)

        return step

    def stand_alone(self) -> Step:
        """Steps of one network for each path."""
        from nni_spos.spaces import ShuffleNetV2Space

        def build(path: Path) -> Callable[[], None]:
            network = ShuffleNetV2Space.frozen_factory(path)(affine=False)
            module = training_module(network)
            train = self._prepare(module, channels_last=True)
            return lambda: train(module)

        steps = [build(path) for path in self.paths]
        return lambda number: steps[number]()

    def stock(self) -> Step:
        """Steps of NNI's supernet."""
        import nni.nas.strategy  # noqa: F401  (first: NNI's packages import each other)
        from nni.nas.hub.pytorch import ShuffleNetSpace
        from nni.nas.oneshot.pytorch.sampling import RandomSamplingLightningModule
        from nni.nas.oneshot.pytorch.strategy import RandomOneShot

        space = ShuffleNetSpace(affine=False)
        RandomOneShot().mutate_model(space)
        module = RandomSamplingLightningModule(training_module(space))
        train = self._prepare(module, channels_last=False)

        def step(number: int) -> None:
            for unit in module.supernet_modules():
                unit.resample(memo=self.paths[number])
            train(module.training_module)

        return step

    def synchronise(self) -> None:
        """Wait for the device, so that a clock shows when the work is done."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _prepare(self, module: LightningModule, channels_last: bool) -> Callable[..., None]:
        """Return a function that trains for one step with this module's optimizer and layout."""
        import torch

        layout = torch.channels_last if channels_last else torch.contiguous_format
        module.to(self.device, memory_format=layout).train()
        batch = self.images.to(self.device, memory_format=layout), self.labels
        optimizer = module.configure_optimizers()

        def train(module: LightningModule) -> None:
            module.training_step(batch, 0).backward()
            optimizer.step()
            optimizer.zero_grad()

        return train


def training_module(network: nn.Module) -> LightningModule:
    """Return the plainest training module: the same work for each contender, nothing logged."""
    import torch
    from nni.nas.evaluator.pytorch import LightningModule
    from torch.nn import functional

    class TrainingModule(LightningModule):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
            images, labels = batch
            return functional.cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9, weight_decay=4e-5)

    module = TrainingModule()
    module.set_model(network)
    return module


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def summarise(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Return quartiles of the times, and of the ratios within each round."""
    times = {name: _quartiles(values) for name, values in seconds.items()}
    ratios = {}
    for needed in REQUIREMENTS:
        rounds = np.array(seconds[needed.over]) / np.array(seconds[needed.under])
        row: dict[str, Any] = _quartiles(rounds)
        row["of_medians"] = times[needed.over]["median"] / times[needed.under]["median"]
        row["met"] = needed.low <= row["median"] <= needed.high
        ratios[str(needed)] = row
    return {"seconds": times, "ratios": ratios}


def _quartiles(values: Iterable[float]) -> dict[str, float]:
    low, median, high = np.quantile(list(values), (0.25, 0.5, 0.75))
    return {"quartile_1": float(low), "median": float(median), "quartile_3": float(high)}


def _rows(summary: dict[str, Any]) -> Iterable[str]:
    yield f"{'seconds per step':<28}{'median':>8}{'quartiles':>18}"
    for name, row in summary["seconds"].items():
        yield f"{name:<28}{_columns(row)}"
    yield f"{'ratio on the same path':<28}{'median':>8}{'quartiles':>18}{'of medians':>13}"
    for name, row in summary["ratios"].items():
        verdict = "met" if row["met"] else "NOT MET"
        yield f"{name:<28}{_columns(row)}{row['of_medians']:>13.3f}  {verdict}"


def _columns(row: dict[str, float]) -> str:
    return f"{row['median']:>8.3f}{row['quartile_1']:>10.3f}{row['quartile_3']:>8.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=16, help="timed rounds")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--paths", type=int, default=8, help="paths that the rounds go through")
    parser.add_argument("--threads", type=int, help="of PyTorch; by default its own choice")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if min(options.repeats, options.batch_size, options.paths) < 1:
        parser.error("numbers must be at least 1.")

    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options.batch_size, min(options.paths, options.repeats))
    steps = {"ours": bench.ours(), "stand-alone": bench.stand_alone(), "stock": bench.stock()}
    summary = summarise(
        time_in_turns(steps, len(bench.paths), options.repeats, bench.synchronise, _progress)
    )
    summary["settings"] = {"batch_size": options.batch_size, "repeats": options.repeats,
                           "paths": len(bench.paths), "threads": torch.get_num_threads(),
                           "device": str(bench.device), "torch": torch.__version__}  # fmt: skip
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in summary["settings"].items()))
    print("\n".join(_rows(summary)))


if __name__ == "__main__":
    main()
