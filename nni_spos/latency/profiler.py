"""Latencies of networks, measured, and a table that predicts those of a whole space.

Every choice of every unit is timed inside running networks. A module that is run alone again and
again finds its weights and its input in the nearest cache; inside a network it finds what the
layers before it left there, and that is what a deployed network pays. So the space is run as one
network whose choices are switched between runs, and a stopwatch is read before and after each
unit. No repetition of single modules is needed: a reading takes a ten-thousandth of a run.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.cost_table import CostTable
from nni_spos.errors import CostError
from nni_spos.latency.stopwatch import CpuStopwatch, CudaStopwatch, Stopwatch
from nni_spos.latency.switched import SwitchedNetwork
from nni_spos.latency.table import (
    DEVICES,
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    LatencyWarning,
    latency_metric,
    load_latency_table,
    this_machine,
)
from nni_spos.modules.copies import ModuleT
from nni_spos.modules.memory_format import choose_format, logits_of
from nni_spos.path import Path, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.profilers.base import build_costs
from nni_spos.profilers.copying import copy_network
from nni_spos.profilers.dry_run import refusal

__all__ = [
    "CpuStopwatch",
    "CudaStopwatch",
    "LatencyProfiler",
    "LatencyTable",
    "LatencyWarning",
    "Stopwatch",
    "load_latency_table",
]

NUM_REFERENCES = 8
"""Whole networks that the constant is fitted to."""

ENUMERATE_BELOW = 100_000
"""Paths of a space that is enumerated to draw from it."""


class LatencyProfiler:
    """Measure networks, and predict every network of a space.

    Networks run in evaluation mode, without gradients, and in 32-bit floats as they are given.
    Measurements go in rounds over everything that is measured, so that a machine that gets
    slower or faster does so for all alike; each round is then brought to the speed of the median
    round, and medians are taken, which a few disturbed runs do not move. Before its timed runs
    in a round a network runs once untimed, because one that is deployed finds its weights in the
    cache.

    Parameters
    ----------
    device
        ``cpu`` or ``cuda``.
    batch_size
        Images at a time.
    threads
        PyTorch's threads for one operation while measuring; by default as many as now.
    channels_last
        Memory format of images and weights, as in training, where the networks allow it.
    rounds
        Number of rounds; every network and every choice is timed at least `repeats` times in
        each.
    repeats
        Timed runs of a network in a round.
    stopwatch
        Takes the readings; by default the device's.

    Raises
    ------
    CostError
        An unknown device or one that is not there, or a number below 1.
    """

    def __init__(
        self,
        device: str = "cpu",
        batch_size: int = 1,
        threads: int | None = None,
        channels_last: bool = True,
        rounds: int = 30,
        repeats: int = 3,
        stopwatch: Stopwatch | None = None,
    ):
        if device not in DEVICES:
            raise CostError(f"unknown device {device!r:.80}. Devices: {', '.join(DEVICES)}.")
        if device == "cuda" and not torch.cuda.is_available():
            raise CostError("device cuda: PyTorch finds no CUDA device on this machine.")
        self.threads = torch.get_num_threads() if threads is None else threads
        numbers = {"batch_size": batch_size, "threads": self.threads}
        for name, number in (numbers | {"rounds": rounds, "repeats": repeats}).items():
            if number < 1:
                raise CostError(f"{name} must be at least 1, got {number}.")
        self.device = device
        self.batch_size = batch_size
        self.channels_last = channels_last
        self.rounds = rounds
        self.repeats = repeats
        self._stopwatch = stopwatch or (CpuStopwatch() if device == "cpu" else CudaStopwatch())

    def measure(self, network: nn.Module, input_shape: Sequence[int]) -> float:
        """Return the latency of a whole network in ms for one batch.

        Warns of a network that cannot run in channels_last, see `nni_spos.modules.memory_format`.

        Parameters
        ----------
        network
            Takes images of shape (batch_size, *input_shape); it is copied, not changed.
        input_shape
            Of one image: (channels, height, width).

        Raises
        ------
        CostError
            Images of the shape do not fit the network.
        """
        layout = self._choose_format([copy_network(network, "cpu")], input_shape)
        network = self._prepare(network, layout)
        images = self._images(input_shape, layout)
        with self._measuring():
            _check_fits(network, images)
            times = [self._time(network, images) for _ in range(self.rounds)]
        return float(np.median(times))

    def profile(
        self,
        space: ModelSpace,
        input_shape: Sequence[int],
        num_paths: int = 30,
        seed: int = 0,
        name: str = "",
        on_round: Callable[[], object] = lambda: None,
    ) -> LatencyTable:
        """Measure every choice of every unit of a space, and validate the table.

        All whole networks together say how fast the machine was in a round; without that, tables
        made on a busy machine ranked networks with correlations of 0.7 instead of 0.98. The cost
        that all paths share is fitted to `NUM_REFERENCES` whole networks, as the median of what
        they take beyond their units. The validation uses other random paths.

        Parameters
        ----------
        space
            In the form whose subnets are to be deployed (BatchNorm with affine parameters); it
            is copied, not changed.
        input_shape
            Of one image: (channels, height, width).
        num_paths
            Random paths, all different, that predictions are compared with; at least 2.
        seed
            Of the paths and of the order in which choices are timed.
        name
            Of the space, for people who read the table.
        on_round
            Called after each of the `rounds` rounds.

        Raises
        ------
        CostError
            The space has other mutables than LayerChoice units or depends on too many
            combinations, has too few paths, or images of the shape do not fit it.
        """
        if num_paths < 2:
            raise CostError(f"a validation needs at least 2 paths, got {num_paths}.")
        path_space = PathSpace.from_model_space(space)
        generator = np.random.default_rng(seed)
        subnets = (space.freeze(path) for path in path_space.covering())
        layout = self._choose_format((copy_network(x, "cpu") for x in subnets), input_shape)
        model = self._prepare(space, layout)
        switched = SwitchedNetwork(model, path_space, self._stopwatch)
        fitted = _draw(path_space, NUM_REFERENCES, generator)
        paths = [*fitted, *_draw(path_space, num_paths, generator)]
        images = self._images(input_shape, layout)
        with torch.inference_mode():
            _check_fits(model.freeze(paths[0]).eval(), images)
        networks = [model.freeze(path).eval() for path in paths]
        whole = np.empty((self.rounds, len(networks), self.repeats))
        with self._measuring():
            for times in whole:
                switched.time_choices(images, self.repeats, generator)
                for i in generator.permutation(len(networks)):
                    times[i] = self._time(networks[i], images)
                on_round()
        slowness = np.median(whole, axis=(1, 2)) / np.median(whole)
        costs, validation = self._evaluate(
            CostTable("units", path_space, 0.0, switched.factors(slowness)),
            paths,
            np.median(whole / slowness[:, None, None], axis=(0, 2)),
            len(fitted),
        )
        return LatencyTable(
            costs=costs,
            conditions=self._conditions(input_shape, layout),
            validation=validation,
            flops=_count_flops(space, input_shape),
            name=name,
        )

    def _choose_format(
        self, networks: Iterable[nn.Module], input_shape: Sequence[int]
    ) -> torch.memory_format:
        """Return the memory format in which networks, which are changed, are to run."""
        if not self.channels_last or len(input_shape) != 3:  # channels_last is only for images
            return torch.contiguous_format
        return choose_format((x.to(self.device) for x in networks), input_shape, logits_of)

    def _prepare(self, network: ModuleT, layout: torch.memory_format) -> ModuleT:
        """Return a copy as it is to run."""
        return copy_network(network, "cpu").eval().to(self.device, memory_format=layout)

    def _images(self, input_shape: Sequence[int], layout: torch.memory_format) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch_size, *input_shape, generator=generator)
        return images.to(self.device, memory_format=layout)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)

    def _time(self, network: nn.Module, images: Tensor) -> list[float]:
        """Return what the repeats took in ms, after one run that is not timed."""
        network(images)
        readings = []
        for _ in range(self.repeats):
            self._stopwatch.finish()
            start = self._stopwatch.read()
            network(images)
            readings.append((start, self._stopwatch.read()))
        self._stopwatch.finish()
        return [self._stopwatch.milliseconds(*pair) for pair in readings]

    def _evaluate(
        self,
        units: CostTable,
        paths: Sequence[Path],
        measured: npt.NDArray[np.float64],
        num_fitted: int,
    ) -> tuple[CostTable, LatencyValidation]:
        """Fit the constant to the first paths, and validate with the others."""
        rest = measured - units.price_many(units.space.encode(paths))
        # Noise must not make the rest of a network cost less than nothing.
        constant = max(0.0, float(np.median(rest[:num_fitted])))
        costs = CostTable(latency_metric(self.device), units.space, constant, units.factors)
        predicted = [costs.price(path) for path in paths[num_fitted:]]
        return costs, LatencyValidation.compare(predicted, measured[num_fitted:].tolist())

    def _conditions(
        self, input_shape: Sequence[int], layout: torch.memory_format
    ) -> LatencyConditions:
        machine = this_machine("cpu") if self.device == "cpu" else torch.cuda.get_device_name()
        return LatencyConditions(
            device=self.device,
            machine=machine or "unknown",
            threads=self.threads,
            batch_size=self.batch_size,
            input_shape=tuple(input_shape),
            channels_last=layout is torch.channels_last,
            torch=str(torch.__version__),
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        )


def _draw(space: PathSpace, count: int, generator: np.random.Generator) -> list[Path]:
    """Return different random paths, fewer than asked for only if the space has no more."""
    if space.size <= ENUMERATE_BELOW:
        return space.decode(space.enumerate()[generator.permutation(space.size)[:count]])
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        drawn = UniformPrior(space).draw(count, generator)
        found.update(dict.fromkeys(map(tuple, drawn.tolist())))
    return space.decode(list(found)[:count])


def _check_fits(network: nn.Module, images: Tensor) -> None:
    try:
        network(images)
    except RuntimeError as problem:
        raise refusal(problem, images.shape[1:], "network") from None


def _count_flops(space: ModelSpace, input_shape: Sequence[int]) -> CostTable | None:
    try:
        return build_costs(space, input_shape)["flops"]
    except CostError:  # latencies need no formulas
        return None
