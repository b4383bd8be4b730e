"""Latencies of networks in the runtime that they are deployed in, and a table of a whole space.

A runtime runs no choices that are switched: it gets whole networks, which it fuses and lays out by
itself. So networks of random paths that together have every choice are exported and run, and the
runtime's own profile says what each operator took, in the place where it is deployed. Times are
matched with the choices that decide them: medians where each combination of choices was seen, else
a line through multiply-adds and elements of the layers. So widths and bits can be measured too.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import CostError
from nni_spos.latency.layer_times import as_deployed, find_units, tabulate
from nni_spos.latency.onnx_networks import as_onnx
from nni_spos.latency.runtimes import open_runtime
from nni_spos.latency.runtimes.base import ProfiledNetwork, RunImages
from nni_spos.latency.slowness import local_slowness
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    latency_metric,
    this_machine,
)
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Path, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.profilers import build_costs
from nni_spos.profilers.base import describe_network

NUM_SAMPLES = 24
"""Networks that times are taken from, at least; more where labels have more choices."""


class RuntimeProfiler:
    """Measure every choice of a space in a runtime, on the CPU.

    Parameters
    ----------
    runtime
        One of `nni_spos.latency.runtimes.RUNTIMES`.
    batch_size
        Images at a time.
    threads
        Of one operator; by default 1, as on a device.
    rounds, repeats
        Every network is timed `repeats` times in each of so many rounds.
    samples
        Networks that the table is made from, at least.

    Raises
    ------
    ExportError
        The runtime is not installed.
    CostError
        A number is below 1.
    """

    def __init__(
        self,
        runtime: str,
        batch_size: int = 1,
        threads: int | None = None,
        rounds: int = 40,
        repeats: int = 1,
        samples: int = NUM_SAMPLES,
    ):
        self.name, self.runtime = runtime, open_runtime(runtime)
        self.threads = 1 if threads is None else threads
        self.batch_size, self.rounds, self.repeats = batch_size, rounds, repeats
        self.samples = samples
        numbers = {"batch_size": batch_size, "threads": self.threads, "rounds": rounds}
        for name, number in (numbers | {"repeats": repeats, "samples": samples}).items():
            if number < 1:
                raise CostError(f"{name} must be at least 1, got {number}.")

    def profile(
        self,
        space: ModelSpace,
        input_shape: Sequence[int],
        num_paths: int = 30,
        seed: int = 0,
        name: str = "",
        on_round: Callable[[], object] = lambda: None,
    ) -> LatencyTable:
        """Measure the choices of a space, and validate the table.

        The parameters are those of `nni_spos.latency.profiler.LatencyProfiler.profile`.

        Raises
        ------
        CostError
            The space has too few paths, images do not fit it, or it has bit widths whose networks
            round floats: these have no kernels of whole numbers.
        ExportError
            A network cannot be written as ONNX.
        """
        if num_paths < 2:
            raise CostError(f"a validation needs at least 2 paths, got {num_paths}.")
        path_space = PathSpace.from_model_space(space)
        generator = np.random.default_rng(seed)
        sampled = _latin(path_space, self.samples, generator)
        tested = _random(path_space, num_paths, sampled, generator)
        paths = [*sampled, *tested]
        shape = tuple(input_shape)
        images = self._images(shape)
        described = as_deployed(space, describe_network(space, shape).layers)
        names = {*(units := find_units(space)), *(x.name for x in described if x.macs)}
        written = [as_onnx(extract_subnet(space, path), images, names) for path in paths]
        measured, layers = self._measure(written, len(sampled), images.numpy(), generator, on_round)
        table = tabulate(path_space, units, described, sampled, layers)
        costs, validation = _validate(
            latency_metric(self.name), table, path_space, paths, measured, len(sampled)
        )
        return LatencyTable(
            costs=costs,
            conditions=self._conditions(shape),
            validation=validation,
            flops=_count_flops(space, shape),
            name=name,
        )

    def measure_paths(
        self, space: ModelSpace, paths: Sequence[Path], input_shape: Sequence[int]
    ) -> npt.NDArray[np.float64]:
        """Return the milliseconds of the whole network of each path, all measured in turns.

        Raises
        ------
        CostError, ExportError
            See `profile`.
        """
        images = self._images(input_shape)
        written = [as_onnx(extract_subnet(space, path), images, ()) for path in paths]
        generator = np.random.default_rng(0)
        return self._measure(written, 0, images.numpy(), generator, lambda: None)[0]

    def _images(self, input_shape: Sequence[int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.batch_size, *input_shape, generator=generator)

    def _measure(
        self,
        written: Sequence[bytes],
        num_profiled: int,
        images: Any,
        generator: np.random.Generator,
        on_round: Callable[[], object],
    ) -> tuple[npt.NDArray[np.float64], list[dict[str, float]]]:
        """Return milliseconds of all networks, and of the layers of the first ones."""
        visits: list[int] = []
        times: list[list[float]] = []
        with tempfile.TemporaryDirectory() as folder:
            runs = [self.runtime.open(content, self.threads) for content in written]
            profiled = [
                self.runtime.open_profiled(content, self.threads, FilePath(folder))
                for content in written[:num_profiled]
            ]
            for _ in range(self.rounds):
                for i in generator.permutation(len(written)):
                    visits.append(i)
                    times.append(_timed(runs[i], images, self.repeats))
                    for _ in range(self.repeats + 1 if i < num_profiled else 0):
                        profiled[i].run(images)
                on_round()
            slowness = local_slowness(np.median(times, axis=1), visits)
            of = [np.equal(visits, i) for i in range(len(written))]
            layers = [
                _layer_times(network, np.repeat(slowness[own], self.repeats + 1))
                for network, own in zip(profiled, of, strict=False)
            ]
        whole = np.array(times) / slowness[:, None]
        return np.array([np.median(whole[own]) for own in of]), layers

    def _conditions(self, shape: tuple[int, ...]) -> LatencyConditions:
        return LatencyConditions(
            device=self.name,
            machine=this_machine("cpu") or "unknown",
            threads=self.threads,
            batch_size=self.batch_size,
            input_shape=shape,
            channels_last=False,
            torch=str(torch.__version__),
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            runtime=self.runtime.version,
        )


def _latin(space: PathSpace, number: int, generator: np.random.Generator) -> list[Path]:
    """Return random paths in which every choice of a label is made equally often."""
    number = max(number, 2 * max(space.num_choices))
    columns = {}
    for label, choices in space.items():
        order = np.concatenate(
            [generator.permutation(len(choices)) for _ in range(-(-number // len(choices)))]
        )
        columns[label] = [choices[i] for i in order[:number]]
    return [{label: column[i] for label, column in columns.items()} for i in range(number)]


def _random(
    space: PathSpace, number: int, known: Sequence[Path], generator: np.random.Generator
) -> list[Path]:
    """Return other random paths, all different, fewer only if the space has no more."""
    found: dict[tuple[Any, ...], Path] = {}
    seen = {tuple(path.values()) for path in known}
    for path in space.decode(UniformPrior(space).draw(20 * number, generator)):
        key = tuple(path.values())
        if key not in seen or space.size < 2 * (number + len(seen)):
            found.setdefault(key, path)
    if len(found) < 2:
        raise CostError("a validation needs a space with more paths.")
    return list(found.values())[:number]


def _timed(run: RunImages, images: Any, repeats: int) -> list[float]:
    """Return the milliseconds of each run but the first."""
    run(images)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(images)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _layer_times(network: ProfiledNetwork, slowness: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the milliseconds of each layer, as medians of all runs; "" for what is of none."""
    return {
        name: float(np.nanmedian(times / slowness)) for name, times in network.layer_runs().items()
    }


def _validate(
    metric: str,
    units: CostTable,
    space: PathSpace,
    paths: Sequence[Path],
    measured: npt.NDArray[np.float64],
    num_fitted: int,
) -> tuple[CostTable, LatencyValidation]:
    """Fit what all paths share to the first ones, and compare with the others.

    Where layers take longer with notes of their times than whole networks without, which is so for
    layers of microseconds, all are brought down by the same share.
    """
    layers = units.price_many(space.encode(paths))
    constant = float(np.median((measured - layers)[:num_fitted]))
    share = 1.0
    if constant < 0:
        constant, share = 0.0, float(np.median((measured / layers)[:num_fitted]))
    factors = [Factor(factor.labels, share * factor.table) for factor in units.factors]
    costs = CostTable(metric, space, constant, factors)
    predicted = costs.price_many(space.encode(paths[num_fitted:]))
    return costs, LatencyValidation.compare(predicted.tolist(), measured[num_fitted:].tolist())


def _count_flops(space: ModelSpace, shape: Sequence[int]) -> CostTable | None:
    try:
        return build_costs(space, shape)["flops"]
    except CostError:  # latencies need no formulas
        return None
