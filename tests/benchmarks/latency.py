"""Compare predictors of latency, and see whether a path that was found under a limit keeps it.

Run ``python tests/benchmarks/latency.py``. The space is the paper's with images of 224 pixels, one
at a time, on the CPU. Latencies of whole networks are predicted in three ways:

- table: `LatencyProfiler`, which times every choice inside running networks.
- alone: every choice timed as a module of its own, on an input of the shape it gets, and a
  constant.
- FLOPs: a straight line in multiply-adds.

What the last two need is measured in the rounds of the table, so that a machine that gets slower
or faster does so for all alike, and each round is brought to the speed of the median round. The
constant and the line are fitted to as many whole networks as the table's constant, and the table
is brought to the speed that the machine had for these networks. All three are judged by the same
random paths, which none of them was fitted to; "table, own paths" is what the table itself states
about others, measured with its units. Other work on the machine spoils all of these figures.

Then `EvolutionSearch` looks for the path with the most multiply-adds, which stand in for accuracy,
under a limit that 40 % of all paths keep by their predicted latency. Its network is measured
several times, each time with the networks above, which say how fast the machine is now.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.constraint import Constraint, format_cost
from nni_spos.cost_table import CostTable, Factor
from nni_spos.evolution import EvolutionSearch, Signal
from nni_spos.latency.accuracy import mape, spearman
from nni_spos.latency.profiler import NUM_REFERENCES, LatencyProfiler
from nni_spos.latency.table import LatencyTable
from nni_spos.path import Path, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.spaces import ShuffleNetV2Space, default_input_shape

Latencies = npt.NDArray[np.float64]
"""Milliseconds, shape (num_modules,)."""

QUANTILE = 0.4
"""Share of the space's paths that the limit lets through."""


@dataclass(frozen=True)
class Module:
    """Something that runs alone, and the shape of one image, or of what takes its place."""

    module: nn.Module
    input_shape: tuple[int, ...]


class Contest:
    """The networks that predictors are fitted to and judged by, and the units alone.

    Parameters
    ----------
    model
        The space, whose units are the layers of `features`.
    num_paths
        Random paths that predictors are judged by.
    threads
        PyTorch's, while measuring.
    """

    def __init__(self, model: ShuffleNetV2Space, num_paths: int, threads: int):
        self.space = PathSpace.from_model_space(model)
        self.paths = _draw(self.space, NUM_REFERENCES + num_paths)
        shape = default_input_shape(model)
        self.networks = [Module(model.freeze(path).eval(), shape) for path in self.paths]
        self._units = {
            (unit.label, choice): Module(unit[choice], input_shape)
            for unit, input_shape in zip(model.features, _input_shapes(model), strict=True)
            for choice in unit.names
        }
        self._profiler = LatencyProfiler(threads=threads, rounds=1)
        self._generator = np.random.default_rng(0)
        self._rounds: list[Latencies] = []

    def measure(self, modules: Sequence[Module]) -> Latencies:
        """Measure modules once, in random order."""
        measured = np.empty(len(modules))
        for i in self._generator.permutation(len(modules)):
            measured[i] = self._profiler.measure(modules[i].module, modules[i].input_shape)
        return measured

    def add_round(self) -> None:
        """Measure everything once more."""
        self._rounds.append(self.measure([*self.networks, *self._units.values()]))

    def latencies(self) -> tuple[Latencies, CostTable]:
        """Return those of the networks, and the table of the units alone, without a constant."""
        rounds = np.array(self._rounds)
        slowness = np.median(rounds[:, : len(self.networks)], axis=1, keepdims=True)
        medians = np.median(rounds / slowness, axis=0) * np.median(slowness)
        networks, units = np.split(medians, [len(self.networks)])
        alone = dict(zip(self._units, units.tolist(), strict=True))
        factors = [
            Factor((label,), np.array([alone[label, choice] for choice in choices]))
            for label, choices in self.space.items()
        ]
        return networks, CostTable("alone", self.space, 0.0, factors)


def _draw(space: PathSpace, count: int) -> list[Path]:
    return space.decode(UniformPrior(space).draw(count, np.random.default_rng(1)))


def _input_shapes(model: ShuffleNetV2Space) -> list[tuple[int, ...]]:
    """Return the shape of what every unit takes, without the batch dimension."""
    shapes = []
    network = model.freeze(_draw(PathSpace.from_model_space(model), 1)[0]).eval()
    hooks = [
        unit.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[1:])))
        for unit in network.features
    ]
    with torch.inference_mode():
        network(torch.zeros(1, *default_input_shape(model)))
    for hook in hooks:
        hook.remove()
    return shapes


def compare(contest: Contest, table: LatencyTable) -> dict[str, dict[str, float | None]]:
    """Return rank correlation and mean absolute error, in percent, of the predictors."""
    measured, alone = contest.latencies()
    assert table.flops is not None
    flops = np.array([table.flops.price(path) for path in contest.paths]) / 1e6
    units = np.array([alone.price(path) for path in contest.paths])
    inside = np.array([table.costs.price(path) for path in contest.paths])
    fitted, judged = slice(NUM_REFERENCES), slice(NUM_REFERENCES, None)
    slope, constant = np.polyfit(flops[fitted], measured[fitted], 1)
    predictions = {
        "table": inside * np.median((measured / inside)[fitted]),
        "alone": units + np.median((measured - units)[fitted]),
        "FLOPs": slope * flops + constant,
    }
    return {
        name: {
            "spearman": spearman(predicted[judged].tolist(), measured[judged].tolist()),
            "mape_percent": mape(predicted[judged].tolist(), measured[judged].tolist()),
        }
        for name, predicted in predictions.items()
    }


def search(table: LatencyTable, generations: int) -> tuple[Constraint, Path]:
    """Return the limit, and the path with the most multiply-adds that was found under it."""
    assert table.flops is not None
    costs = {"flops": table.flops, table.costs.metric: table.costs}
    predicted = [table.costs.price(path) for path in _draw(table.costs.space, 10_000)]
    limit = Constraint(table.costs.metric, high=round(float(np.quantile(predicted, QUANTILE)), 3))
    evolution = EvolutionSearch(
        table.costs.space,
        costs,
        constraints=[limit],
        num_generations=generations,
        objective="flops",
    )
    while not isinstance(path := evolution.ask(), Signal):
        evolution.tell(path, {"flops": table.flops.price(path)})
    return limit, evolution.top(1)[0].path


def try_out(
    contest: Contest, table: LatencyTable, limit: Constraint, network: Module, repeats: int
) -> dict[str, Any]:
    """Measure the network that was found, and say whether it keeps the limit.

    Parameters
    ----------
    contest
        Its networks say how fast the machine is.
    table
        States the error that is allowed for.
    limit
        What the search kept to.
    network
        Of the path that was found.
    repeats
        How many times it is measured.
    """
    then = np.median(contest.latencies()[0])
    measured, slowness = [], []
    for repeat in range(repeats):
        latency, *others = contest.measure([network, *contest.networks])
        measured.append(float(latency))
        slowness.append(float(np.median(others) / then))
        _progress(f"measurement {repeat + 1}/{repeats}: {latency:.2f} ms")
    at_speed = float(np.median(np.array(measured) / slowness))
    highest = limit.high * (1 + table.validation.mape_percent / 100)
    return {
        "measured_ms": measured,
        "slowness": float(np.median(slowness)),
        "measured_at_the_tables_speed_ms": at_speed,
        "met": at_speed <= highest,
        "met_as_measured": float(np.median(measured)) <= highest,
    }


def measure(
    model: ShuffleNetV2Space, options: argparse.Namespace
) -> tuple[dict[str, Any], LatencyTable]:
    """Run everything, and return the results and the table."""
    contest = Contest(model, options.paths, options.threads)
    profiler = LatencyProfiler(threads=options.threads, rounds=options.rounds)
    done = iter(range(1, options.rounds + 1))

    def on_round() -> None:
        contest.add_round()
        _progress(f"round {next(done)}/{options.rounds}")

    table = profiler.profile(
        model, default_input_shape(model), num_paths=options.paths, on_round=on_round
    )
    limit, path = search(table, options.generations)
    network = Module(model.freeze(path).eval(), default_input_shape(model))
    assert table.flops is not None
    found = {
        "limit": str(limit),
        "path": path,
        "flops": table.flops.price(path),
        "predicted_ms": table.costs.price(path),
        **try_out(contest, table, limit, network, options.repeats),
    }
    own = table.validation
    predictors = {
        **compare(contest, table),
        "table, own paths": {"spearman": own.spearman, "mape_percent": own.mape_percent},
    }
    return {"predictors": predictors, "search": found}, table


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _rows(summary: dict[str, Any]) -> Iterator[str]:
    yield f"{'prediction of whole networks':<30}{'Spearman':>10}{'mean error':>13}"
    for name, row in summary["predictors"].items():
        rank = "undefined" if row["spearman"] is None else f"{row['spearman']:.3f}"
        yield f"{name:<30}{rank:>10}{row['mape_percent']:>11.1f} %"
    found = summary["search"]
    measured = found["measured_ms"]
    yield f"best path under {found['limit']}: {' '.join(found['path'].values())}"
    yield f"  {format_cost(found['flops'])} multiply-adds"
    yield f"  predicted {found['predicted_ms']:.2f} ms"
    yield (
        f"  measured {np.median(measured):.2f} ms, in {len(measured)} measurements "
        f"{min(measured):.2f} to {max(measured):.2f} ms: limit {_met(found['met_as_measured'])}"
    )
    yield (
        f"  the machine took {found['slowness']:.3f} times as long as for the table; at the "
        f"table's speed {found['measured_at_the_tables_speed_ms']:.2f} ms: "
        f"limit {_met(found['met'])}"
    )
    error = summary["predictors"]["table, own paths"]["mape_percent"]
    yield f"  (a limit counts as met up to the table's stated error, {error:.1f} %)"


def _met(met: bool) -> str:
    return "met" if met else "NOT MET"


def _settings(
    model: ModelSpace, options: argparse.Namespace, table: LatencyTable
) -> dict[str, Any]:
    conditions = table.conditions
    return {
        "images": "x".join(map(str, conditions.input_shape)),
        "batch_size": conditions.batch_size,
        "rounds": options.rounds,
        "paths": options.paths,
        "threads": conditions.threads,
        "device": conditions.machine,
        "torch": conditions.torch,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table or, with ``--json``, one JSON document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="of measuring (default 30)")
    parser.add_argument(
        "--repeats", type=int, default=5, help="measurements of the path that is found"
    )
    parser.add_argument("--paths", type=int, default=30, help="random paths to predict")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument(
        "--quick", action="store_true", help="small images, by default 2 rounds, a short search"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 2 if options.quick else 30
    if min(options.rounds, options.repeats, options.threads) < 1 or options.paths < 2:
        parser.error("numbers must be at least 1, and paths 2.")
    options.generations = 2 if options.quick else 20

    torch.manual_seed(0)
    build = ShuffleNetV2Space.small if options.quick else ShuffleNetV2Space
    model = build(affine=True)
    summary, table = measure(model, options)
    summary["settings"] = _settings(model, options, table)
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in summary["settings"].items()))
    print("\n".join(_rows(summary)))


if __name__ == "__main__":
    main()
