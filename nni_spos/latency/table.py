"""Measured latencies of a space in a file: the table, how it was measured and how good it is.

Reading one imports neither PyTorch nor NNI, so that a tuner can.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from nni_spos.cost_table import CostTable
from nni_spos.errors import CostError, one_line
from nni_spos.files.atomic import read_json, write_json
from nni_spos.latency.accuracy import mape, spearman
from nni_spos.latency.runtimes import RUNTIMES
from nni_spos.path import PathSpace
from nni_spos.values import shown

VERSION = 1
WEAK_SPEARMAN = 0.9
"""Rank correlations below it are pointed out to people."""
DEVICES = ("cpu", "cuda")


class LatencyWarning(UserWarning):
    """A latency table was measured under other conditions than it is used for."""


def latency_metric(device: str) -> str:
    """Return the name of the metric.

    >>> latency_metric("cpu")
    'latency_ms(cpu)'
    """
    return f"latency_ms({device})"


@dataclass(frozen=True)
class LatencyConditions:
    """What a latency depends on besides the network.

    Parameters
    ----------
    device
        ``cpu``, ``cuda``, or a runtime of the CPU such as ``onnxruntime``.
    machine
        Model of the processor or GPU.
    threads
        PyTorch's threads for one operation.
    batch_size, input_shape
        Images at a time, and (channels, height, width) of one.
    channels_last
        Memory format of images and weights.
    torch
        Version of PyTorch.
    date
        Of the measurement, UTC, ISO 8601.
    runtime
        Name and version of what ran the networks, if it was not PyTorch.
    """

    device: str
    machine: str
    threads: int
    batch_size: int
    input_shape: tuple[int, ...]
    channels_last: bool
    torch: str
    date: str
    runtime: str = ""


@dataclass(frozen=True)
class LatencyValidation:
    """Latencies of whole networks, predicted by a table and measured.

    Parameters
    ----------
    predicted_ms, measured_ms
        For the same random paths, none of which the table was fitted to.
    mape_percent
        Mean absolute percentage error of the predictions.
    spearman
        Rank correlation; None where all predictions, or all measurements, are the same.
    """

    predicted_ms: tuple[float, ...]
    measured_ms: tuple[float, ...]
    mape_percent: float
    spearman: float | None

    @classmethod
    def compare(cls, predicted: Sequence[float], measured: Sequence[float]) -> LatencyValidation:
        """Compute the two figures from latencies in ms.

        Raises
        ------
        CostError
            Numbers of both differ, or one is not finite or not above 0.
        """
        if len(predicted) != len(measured) or not measured:
            raise CostError("every measured latency needs its prediction.")
        values = np.array([predicted, measured], dtype=np.float64)
        if not (np.isfinite(values) & (values > 0)).all():
            raise CostError("a predicted or measured latency is not a number above 0.")
        with np.errstate(over="ignore"):
            error = mape(predicted, measured)
        if not np.isfinite(error):
            raise CostError("a predicted latency is too far from the measured one.")
        return cls(
            predicted_ms=tuple(map(float, predicted)),
            measured_ms=tuple(map(float, measured)),
            mape_percent=error,
            spearman=spearman(predicted, measured),
        )


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of a space.

    Parameters
    ----------
    costs
        Milliseconds for one batch, as a table for constraints and searches.
    conditions
        How they were measured.
    validation
        How well the table predicts whole networks.
    flops
        Multiply-adds of the same space, which tell it from one with the same labels but other
        widths or images; None where they cannot be counted.
    name
        Of the space, for people.
    """

    costs: CostTable
    conditions: LatencyConditions
    validation: LatencyValidation
    flops: CostTable | None = None
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `read_latency_table` reads."""
        return {
            "latency_version": VERSION,
            "metric": self.costs.metric,
            "name": self.name,
            "conditions": dataclasses.asdict(self.conditions),
            "validation": dataclasses.asdict(self.validation),
            "search_space": self.costs.space.to_search_space(),
            "table": self.costs.to_json(),
            "flops": self.flops and self.flops.to_json(),
        }

    def describe(self) -> str:
        """Return a few lines for people: conditions, extremes of the space, and validation."""
        conditions, validation = self.conditions, self.validation
        shape = "x".join(map(str, conditions.input_shape))
        measured, correlation = validation.measured_ms, validation.spearman
        is_weak = correlation is not None and correlation < WEAK_SPEARMAN
        return (
            f"{self.costs.metric} of {self.name or 'the space'}, batches of "
            f"{conditions.batch_size} x {shape}\n"
            f"  {conditions.machine}, threads: {conditions.threads}, "
            f"channels_last: {'yes' if conditions.channels_last else 'no'}, "
            f"{conditions.runtime or f'PyTorch {conditions.torch}'}\n"
            f"  cheapest path {self.costs.cheapest()[0]:.2f} ms, "
            f"dearest {self.costs.dearest()[0]:.2f} ms\n"
            f"  {len(measured)} random paths, {min(measured):.2f} to {max(measured):.2f} ms as "
            f"whole networks: mean absolute error {validation.mape_percent:.1f} %, "
            f"Spearman {'undefined' if correlation is None else f'{correlation:.3f}'}"
            + "\n  that is weak: measure again while nothing else runs on the machine"
            * is_weak
        )

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the table as JSON, atomically."""
        write_json(file, self.to_json())


def read_latency_table(file: str | os.PathLike[str]) -> LatencyTable:
    """Read a table with everything that is known about it, whatever its space.

    Raises
    ------
    CostError
        The file is missing, damaged, not a latency table, or holds a value that is not a finite
        number or is negative; one line that names the file.
    """
    content = read_json(file, CostError)
    if not isinstance(content, Mapping) or "latency_version" not in content:
        raise CostError(f"{file}: is not a latency table; 'nni-spos latency' makes one.")
    if content["latency_version"] != VERSION:
        raise CostError(
            f"{file}: has version {shown(content['latency_version'])}; this is version {VERSION}."
        )
    try:
        return _from_json(content)
    except CostError as problem:
        raise CostError(f"{file}: {problem}") from None
    except Exception as problem:  # anything may be in the place of anything
        text = " ".join(str(problem).split())
        raise CostError(
            f"{file}: is damaged ({type(problem).__name__}: {text:.200}). Measure it anew."
        ) from None


def _from_json(content: Mapping[str, Any]) -> LatencyTable:
    space = PathSpace.from_search_space(content["search_space"])
    conditions = LatencyConditions(
        **{**content["conditions"], "input_shape": tuple(content["conditions"]["input_shape"])}
    )
    _check_conditions(conditions)
    costs = CostTable.from_json(content["table"], space)
    metric = latency_metric(conditions.device)
    if costs.metric != metric or content["metric"] != metric:
        raise CostError(f"its metric must be {metric}, got {shown(costs.metric)}.")
    lowest = min([costs.constant, *(factor.table.min() for factor in costs.factors)])
    if lowest < 0:
        raise CostError(f"the latency {lowest:g} ms is negative.")
    validation = content["validation"]
    flops = content["flops"]
    return LatencyTable(
        costs=costs,
        conditions=conditions,
        validation=LatencyValidation.compare(validation["predicted_ms"], validation["measured_ms"]),
        flops=None if flops is None else CostTable.from_json(flops, space),
        name=str(content["name"]),
    )


def _check_conditions(conditions: LatencyConditions) -> None:
    kinds: dict[type, tuple[str, ...]] = {
        str: ("machine", "torch", "date", "runtime"),
        int: ("threads", "batch_size"),
        bool: ("channels_last",),
    }
    for kind, fields in kinds.items():
        for field in fields:
            if type(getattr(conditions, field)) is not kind:
                raise CostError(f"its {field} is {shown(getattr(conditions, field))}.")
    if not all(type(size) is int for size in conditions.input_shape):
        raise CostError(f"its input_shape is {shown(conditions.input_shape)}.")
    known = (*DEVICES, *RUNTIMES)
    if conditions.device not in known:
        raise CostError(f"its device is {shown(conditions.device)}; known: {', '.join(known)}.")


def load_latency_table(
    file: str | os.PathLike[str],
    space: PathSpace,
    *,
    machine: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    flops: CostTable | None = None,
) -> CostTable:
    """Read the latencies of a space as a cost table.

    Parameters
    ----------
    file
        What `LatencyTable.save` or ``nni-spos latency`` wrote.
    space
        Labels and choices that the table must be for.
    machine
        Processor or GPU that the latencies are wanted for; by default this machine's.
    threads, batch_size
        PyTorch's threads and images at a time that they are wanted for; by default as measured.
    flops
        Multiply-adds of the space, to see that its layers are those that were measured.

    Warns
    -----
    LatencyWarning
        The table is of another machine, number of threads or batch size, or its fixed layers
        are others (as with another number of classes).

    Raises
    ------
    CostError
        The file is missing or damaged, or was measured for another space.
    """
    table = read_latency_table(file)
    _check_space(file, table, space, flops)
    machine = machine or this_machine(table.conditions.device)
    wanted = {"machine": machine, "threads": threads, "batch_size": batch_size}
    for name, value in wanted.items():
        measured = getattr(table.conditions, name)
        if value is not None and value != measured:
            _warn(
                f"{file}: was measured with {name.replace('_', ' ')} {measured}, "
                f"and is used for {value}."
            )
    if table.flops and flops and table.flops.constant != flops.constant:
        _warn(
            f"{file}: the layers that every path has do {table.flops.constant} multiply-adds in "
            f"the measured space and {flops.constant} in this one."
        )
    # The same labels may come in another order, which indices of paths depend on.
    return CostTable(table.costs.metric, space, table.costs.constant, table.costs.factors)


def _warn(text: str) -> None:
    warnings.warn(one_line(text), LatencyWarning, stacklevel=3)


def _check_space(
    file: str | os.PathLike[str], table: LatencyTable, space: PathSpace, flops: CostTable | None
) -> None:
    measured = table.costs.space
    wrong = space.differing(measured)
    if wrong:
        raise CostError(
            f"{file}: was measured for another space: label '{wrong[0]}' has "
            f"{measured.describe_choices(wrong[0])} there and "
            f"{space.describe_choices(wrong[0])} here."
        )
    if table.flops is None or flops is None:
        return
    if _entries(table.flops) != _entries(flops):
        raise CostError(
            f"{file}: was measured for another space: its labels are the same, but its layers "
            "have other sizes (images of shape "
            f"{'x'.join(map(str, table.conditions.input_shape))}). Measure this one."
        )


def _entries(table: CostTable) -> dict[tuple[str, ...], Any]:
    return {factor.labels: factor.table.tolist() for factor in table.factors}


def this_machine(device: str) -> str | None:
    """Return the model of this machine's processor or first NVIDIA GPU, None if unknown.

    The GPU's is read from the driver, without PyTorch.
    """
    if device != "cuda":
        found = _first_line("/proc/cpuinfo", r"model name\s*:\s*(.+)")
        return found or platform.processor() or platform.machine() or None
    drivers = sorted(FilePath("/proc/driver/nvidia/gpus").glob("*/information"))
    return _first_line(drivers[0], r"Model:\s*(.+)") if drivers else None


def _first_line(file: str | os.PathLike[str], pattern: str) -> str | None:
    try:
        match = re.search(pattern, FilePath(file).read_text(encoding="utf-8"))
    except OSError:
        return None
    return match[1].strip() if match else None
