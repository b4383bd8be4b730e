"""Time the constrained prior and the prices of paths: draws, set-up, memory, a training step.

Run ``OMP_NUM_THREADS=1 python tests/benchmarks/prior.py``. There are two spaces: the paper's 20
units of 4 blocks, priced by `build_costs`, and the same units with 8 widths of the block's inner
channels each, whose table is computed here by the arithmetic of the blocks (at width 1.0 it must
equal the first table). Both are drawn from in the 1-MFLOPs bin that holds the fewest paths, and
in 290-300 MFLOPs, by counting and by rejection of uniform paths. NNI's ``FlopsProfiler`` is set
to count what we count (convolutions and linear layers) and must give the same numbers.

Rounds interleave what is compared, and medians are reported, because other work on the machine
comes and goes. Memory is the peak that tracemalloc sees, in runs of their own.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable, Factor
from nni_spos.counting import PathCounter, Region, UniformRegion
from nni_spos.path import PathSpace
from nni_spos.priors import SPOS_BINS, ConstrainedPrior, Prior, UniformPrior

if TYPE_CHECKING:
    from nni.nas.nn.pytorch import ModelSpace

IMAGE = (3, 224, 224)
SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
BLOCKS = {"k3": ("pdp", 3), "k5": ("pdp", 5), "k7": ("pdp", 7), "xcep": ("dpdpdp", 3)}


@dataclass(frozen=True)
class Goal:
    """A bound on a measured number."""

    name: str
    unit: str
    low: float = 0.0
    high: float = float("inf")

    def met(self, value: float) -> bool:
        """Whether a number keeps the bound."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f">= {self.low:g}" if self.low else f"<= {self.high:g}"


GOALS = (
    Goal("block, rarest bin: counting", "draws/s", low=100_000),
    Goal("block, 290-300M: counting", "draws/s", low=100_000),
    Goal("joint, rarest bin: counting", "draws/s", low=25_000),
    Goal("joint, 290-300M: counting", "draws/s", low=25_000),
    Goal("block: set-up", "s", high=0.2),
    Goal("joint: set-up", "s", high=0.2),
    Goal("block: peak memory", "MB", high=200),
    Goal("joint: peak memory", "MB", high=200),
    Goal("block: path of a step", "ms", high=0.05),
    Goal("joint: path of a step", "ms", high=0.05),
    Goal("1,000,000 paths priced", "s", high=1),
    Goal("one path priced", "us", high=20),
)


def joint_table(block: CostTable) -> CostTable:
    """Return the FLOPs of 4 blocks and 8 widths in every unit of the paper's space."""
    choices: dict[str, Any] = {}
    factors = []
    for label, shape in zip(block.space, _units(), strict=True):
        table = np.array(
            [[_macs(*shape, *BLOCKS[b], s) for s in SCALES] for b in block.space[label]]
        )
        choices |= {label: block.space[label], f"{label}_scale": SCALES}
        factors.append(Factor((label, f"{label}_scale"), table))
    joint = CostTable("flops", PathSpace(choices), block.constant, factors)
    paths = block.space.decode(np.random.default_rng(0).integers(0, 4, (100, len(block.space))))
    for path in paths:
        scaled = {f"{label}_scale": 1.0 for label in path}
        assert joint.price(path | scaled) == block.price(path)
    return joint


def _units() -> Iterator[tuple[int, int, int, int]]:
    """Yield (input channels, output channels, input size, stride) of every unit."""
    channels, size = 16, 112
    for repeats, width in zip((4, 4, 8, 4), (64, 160, 320, 640), strict=True):
        for position in range(repeats):
            stride = 2 if position == 0 else 1
            yield channels, width, size, stride
            channels, size = width, size // stride


def _macs(
    inputs: int, outputs: int, size: int, stride: int, kinds: str, kernel: int, scale: float
) -> int:
    kept = inputs if stride == 2 else inputs // 2
    mid, channels, out_size, macs = int(outputs // 2 * scale), kept, size // stride, 0
    for position, kind in enumerate(kinds):
        if kind == "d":
            size = out_size
            macs += size**2 * channels * kernel**2
        else:
            width = outputs - kept if position == len(kinds) - 1 else mid
            macs += size**2 * channels * width
            channels = width
    projection = out_size**2 * kept * (kernel**2 + kept) if stride == 2 else 0
    return macs + projection


def bins(table: CostTable) -> dict[str, Constraint]:
    """Return the 1-MFLOPs bin with the fewest paths, and 290-300 MFLOPs."""
    costs, counts = PathCounter([table], max_entries=30_000_000).distribution()
    million = (costs // 10**6).astype(np.int64)
    totals = np.bincount(million, weights=counts)
    rarest = int(np.flatnonzero(totals)[np.argmin(totals[totals > 0])])
    return {
        "rarest bin": Constraint("flops", rarest * 1e6, (rarest + 1) * 1e6 - 1),
        "290-300M": Constraint("flops", 290e6, 300e6),
    }


def measure_draws(name: str, table: CostTable, num_paths: int, repeats: int) -> dict[str, Any]:
    """Return draws a second in each bin, by counting and by rejection, and what the bins hold."""
    counter = PathCounter([table])
    regions: dict[str, Region] = {}
    facts: dict[str, Any] = {}
    for where, limit in bins(table).items():
        region = counter.within(limit)
        regions[f"{name}, {where}: counting"] = region
        regions[f"{name}, {where}: rejection"] = UniformRegion(table.space, [table], [limit])
        facts[f"{name}, {where}"] = {
            "bin": str(limit),
            "paths": region.count(),
            "share": region.count() / table.space.size,
            "acceptance": region.acceptance,
        }
    rates: dict[str, list[float]] = {key: [] for key in regions}
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        for key, region in _turned(regions, repeat):
            # The same number of proposals for both; what rejection refuses is time lost.
            seconds, accepted = _timed(partial(_accepted, region, num_paths, generator))
            rates[key].append(accepted / seconds)
        _progress(f"{name}: draws, round {repeat + 1}/{repeats}")
    return {"rates": rates, "facts": facts}


def _accepted(region: Region, num_proposals: int, generator: np.random.Generator) -> int:
    block = 8192
    return sum(
        len(region.accepted(min(block, num_proposals - start), generator))
        for start in range(0, num_proposals, block)
    )


def measure_prior(name: str, table: CostTable, repeats: int) -> dict[str, list[float]]:
    """Return set-up, memory and the time of a training step's path."""
    setup: list[float] = []
    steps: dict[str, list[float]] = {"path of a step": [], "path of a step, uniform": []}
    num_steps = 10 * ConstrainedPrior.BLOCK_SIZE
    for repeat in range(repeats):
        seconds, prior = _timed(lambda: ConstrainedPrior(table.space, table, list(SPOS_BINS)))
        setup.append(seconds)
        contenders = dict(zip(steps, (prior, UniformPrior(table.space)), strict=True))
        for key, contender in _turned(contenders, repeat):
            seconds, _ = _timed(partial(_train, contender, num_steps))
            steps[key].append(1e3 * seconds / num_steps)
        _progress(f"{name}: prior, round {repeat + 1}/{repeats}")
    tracemalloc.start()
    ConstrainedPrior(table.space, table, list(SPOS_BINS)).path(0)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    found = {"set-up": setup, "peak memory": [peak], **steps}
    return {f"{name}: {key}": values for key, values in found.items()}


def _train(prior: Prior, num_steps: int) -> None:
    for step in range(num_steps):
        prior.path(step)


def measure_prices(table: CostTable, space: ModelSpace, repeats: int) -> dict[str, list[float]]:
    """Return the time of pricing many paths at once and single ones, by us and by NNI."""
    profiler = _nni_profiler(space)
    generator = np.random.default_rng(0)
    many = generator.integers(0, 4, (1_000_000, len(table.space)))
    paths = table.space.decode(many[:1000])
    ours, theirs = [table.price(p) for p in paths], [profiler.profile(p) for p in paths[:100]]
    assert ours[:100] == theirs, "NNI counts something else"
    assert table.price_many(many[:1000]).tolist() == ours
    seconds: dict[str, list[float]] = {
        "1,000,000 paths priced": [], "one path priced": [], "one path priced by NNI": []
    }  # fmt: skip
    for repeat in range(repeats):
        seconds["1,000,000 paths priced"].append(_timed(lambda: table.price_many(many))[0])
        one = _timed(lambda: [table.price(path) for path in paths])[0]
        seconds["one path priced"].append(1e6 * one / len(paths))
        nni = _timed(lambda: [profiler.profile(path) for path in paths[:100]])[0]
        seconds["one path priced by NNI"].append(1e6 * nni / 100)
        _progress(f"prices, round {repeat + 1}/{repeats}")
    return seconds


def _nni_profiler(space: ModelSpace) -> Any:
    import torch
    from nni.nas.profiler.pytorch.flops import FlopsProfiler, FlopsResult, register_flops_formula
    from torch import nn

    logging.getLogger("nni").setLevel(logging.ERROR)  # its warnings go to standard output
    # There is an option for normalisation and activations, but none for pooling.
    register_flops_formula(nn.AdaptiveAvgPool2d, lambda *_: FlopsResult(0.0, 0.0))
    return FlopsProfiler(
        space, torch.zeros(1, *IMAGE), count_normalization=False, count_activation=False
    )


def _turned(contenders: dict[str, Any], repeat: int) -> list[tuple[str, Any]]:
    items = list(contenders.items())
    first = repeat % len(items)
    return items[first:] + items[:first]


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="timed rounds")
    parser.add_argument("--paths", type=int, default=100_000, help="paths proposed in a round")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if min(options.repeats, options.paths) < 1:
        parser.error("numbers must be at least 1.")

    from nni_spos.profilers import build_costs
    from nni_spos.spaces import ShuffleNetV2Space

    space = ShuffleNetV2Space(affine=True)
    block = build_costs(space, IMAGE)["flops"]
    values: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    for name, table in (("block", block), ("joint", joint_table(block))):
        draws = measure_draws(name, table, options.paths, options.repeats)
        values |= draws["rates"] | measure_prior(name, table, options.repeats)
        facts |= draws["facts"]
    values |= measure_prices(block, space, options.repeats)
    medians = {key: float(np.median(found)) for key, found in values.items()}
    if options.json:
        print(json.dumps({"medians": medians, "values": values, "bins": facts}, indent=2))
        return
    for where, fact in facts.items():
        print(f"{where}: {fact['bin']}, {fact['paths']} paths, {fact['share']:.2e} of the space; "
              f"{fact['acceptance']:.0%} of the counted draws accepted")  # fmt: skip
    goals = {goal.name: goal for goal in GOALS}
    for key, median in medians.items():
        goal = goals.get(key)
        verdict = f"{goal.unit:<8} goal {goal}: {_met(goal, median)}" if goal else ""
        print(f"{key:<32}{median:>14.6g} {verdict}")


def _met(goal: Goal, value: float) -> str:
    return "met" if goal.met(value) else "NOT MET"


if __name__ == "__main__":
    main()
