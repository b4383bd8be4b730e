"""Latencies of networks in the runtime that they are deployed in, and a table of a whole space.

A runtime runs no choices that are switched: it gets whole networks, which it fuses and lays out by
itself. So networks of random paths that together have every choice are exported and run, and the
runtime's own profile says what each operator took, in the place where it is deployed. Times are
matched with the choices that decide them: medians where each combination of choices was seen, else
a line through multiply-adds and elements of the layers. So widths and bits can be measured too.
"""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import itertools
import json
import math
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from scipy.optimize import nnls
from torch import nn

from nni_spos.cost_table import CostTable, Factor
from nni_spos.errors import CostError, ExportError, text_of
from nni_spos.export.base import check_packages
from nni_spos.export.images import InputImages
from nni_spos.export.quantizing import is_quantized
from nni_spos.export.tracing import quiet
from nni_spos.latency.table import (
    LatencyConditions,
    LatencyTable,
    LatencyValidation,
    latency_metric,
    this_machine,
)
from nni_spos.metrics import Layer
from nni_spos.modules.subnet import extract_subnet
from nni_spos.path import Path, PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.profilers import build_costs
from nni_spos.profilers.base import describe_network

RUNTIME = "onnxruntime"
OPSET = 17
INTEGERS = "nni_spos.export.integers"
NUM_SAMPLES = 24
"""Networks that times are taken from, at least; more where labels have more choices."""

SEEN_FOR_MEDIAN = 2
"""Times that each combination of choices must have been seen for medians."""

_KERNEL = re.compile(r"(/\S*?)(_output_\d+)?(_nchwc|_token_\d+|_quant)?_kernel_time")

DecidingLabels = tuple[str, ...]
"""Labels that decide what some layers take."""


class RuntimeProfiler:
    """Measure every choice of a space in onnxruntime, on the CPU.

    Parameters
    ----------
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
        batch_size: int = 1,
        threads: int | None = None,
        rounds: int = 15,
        repeats: int = 3,
        samples: int = NUM_SAMPLES,
    ):
        check_packages(("onnx", "onnxruntime"), "onnx", f"runtime {RUNTIME}")
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
        images = torch.randn(self.batch_size, *shape, generator=torch.Generator().manual_seed(0))
        written = [_as_onnx(extract_subnet(space, path), images) for path in paths]
        whole = np.empty((self.rounds, len(paths), self.repeats))
        with tempfile.TemporaryDirectory() as folder:
            runs = [self._open(content) for content in written]
            profiled = [self._open(x, FilePath(folder)) for x in written[: len(sampled)]]
            for times in whole:
                for i in generator.permutation(len(paths)):
                    times[i] = _timed(runs[i], images.numpy(), self.repeats)
                    if i < len(sampled):
                        _timed(profiled[i], images.numpy(), self.repeats)
                on_round()
            slowness = np.median(whole, axis=(1, 2)) / np.median(whole)
            # A run that is not timed comes before the others of a round.
            each = np.repeat(slowness, self.repeats + 1)
            layers = [_layer_times(session, each) for session in profiled]
        measured = np.median(whole / slowness[:, None, None], axis=(0, 2))
        described = describe_network(space, shape).layers
        units = _tabulate(path_space, _units(space), described, sampled, layers)
        costs, validation = _validate(units, path_space, paths, measured, len(sampled))
        return LatencyTable(
            costs=costs,
            conditions=self._conditions(shape),
            validation=validation,
            flops=_count_flops(space, shape),
            name=name,
        )

    def _open(self, content: bytes, folder: FilePath | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        if folder is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(folder / f"{len(list(folder.iterdir()))}")
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def _conditions(self, shape: tuple[int, ...]) -> LatencyConditions:
        import onnxruntime

        return LatencyConditions(
            device=RUNTIME,
            machine=this_machine("cpu") or "unknown",
            threads=self.threads,
            batch_size=self.batch_size,
            input_shape=shape,
            channels_last=False,
            torch=str(torch.__version__),
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            runtime=f"onnxruntime {onnxruntime.__version__}",
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


def _as_onnx(network: nn.Module, images: torch.Tensor) -> bytes:
    """Return a network as ONNX, whose operators have the names of their layers."""
    import io

    if is_quantized(network):
        return _integers_as_onnx(network, images)
    stream = io.BytesIO()
    network = network.eval()
    with torch.no_grad(), quiet():
        try:
            # The exporter of scripts: it takes a tenth of the time of the one that is used to
            # deploy, and the runtime makes the same of both.
            torch.onnx.export(
                network,
                (images,),
                stream,
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["outputs"],
            )
        except Exception as problem:
            raise ExportError(
                f"a network cannot be written as ONNX ({text_of(problem):.300})."
            ) from problem
    return stream.getvalue()


def _integers_as_onnx(network: nn.Module, images: torch.Tensor) -> bytes:
    """Return a network with bit widths as one of whole numbers. Raises CostError."""
    from nni_spos.export.base import ExportForm, Model
    from nni_spos.export.onnx_format import LEAST_OPSET, as_onnx

    with torch.no_grad():
        network.eval()(images)  # so that nothing waits for its first images
    prepared = _prepare_integers(network)
    if is_quantized(prepared):
        raise CostError(
            "the networks of this space round floats to their bit widths, which no runtime has "
            "kernels for. Use the quantizer symmetric, whose networks compute with whole numbers."
        )
    channels, height, width = images.shape[1:]
    kind = InputImages(channels, height, width, 8, (0.5,) * channels, (0.5,) * channels, height)
    opset = int(getattr(prepared, "minimal_opset", LEAST_OPSET))
    proto = as_onnx(Model(prepared, kind, ExportForm(batch=len(images))), opset)
    for number, node in enumerate(proto.graph.node):
        scopes = next((x.value for x in node.metadata_props if x.key.endswith("name_scopes")), "[]")
        names = [x for x in json.loads(scopes.replace("'", '"')) if x]
        layer = names[-2] if len(names) > 1 else ""
        node.name = "/" + "/".join([*layer.removeprefix("network.").split("."), f"op_{number}"])
    content: bytes = proto.SerializeToString()
    return content


def _prepare_integers(network: nn.Module) -> nn.Module:
    """Return a network whose quantized layers compute with whole numbers, where they can."""
    if importlib.util.find_spec(INTEGERS) is None:
        return network
    found: nn.Module = importlib.import_module(INTEGERS).prepare_quantized(network)
    return found


def _timed(session: Any, images: Any, repeats: int) -> list[float]:
    session.run(None, {"images": images})
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        session.run(None, {"images": images})
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _layer_times(session: Any, slowness: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the milliseconds of each layer, as medians of all runs; "" for what is of none."""
    file = FilePath(session.end_profiling())
    taken: dict[str, list[float]] = defaultdict(list)
    for event in json.loads(file.read_text(encoding="utf-8")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"]].append(event["dur"] / 1e3)
    layers: dict[str, float] = defaultdict(float)
    for name, times in taken.items():
        count = max(1, round(len(times) / len(slowness)))  # of operators of one name
        sums = np.array(times[: count * len(slowness)]).reshape(-1, count).sum(axis=1)
        layers[layer_of(name)] += float(np.median(sums / slowness[: len(sums)]))
    return dict(layers)


def layer_of(event: str) -> str:
    """Return the layer of an operator by its name in the profile; "" if it is of none.

    >>> layer_of("/blocks/blocks.5/main/main.3/Conv_kernel_time")
    'blocks.5.main.3'
    >>> layer_of("/stem/stem.2/Relu_output_0_nchwc_kernel_time"), layer_of("Reorder_kernel_time")
    ('stem.2', '')
    """
    match = _KERNEL.fullmatch(event)
    parts: list[str] = []
    for part in match[1].split("/")[1:-1] if match else ():
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)


@dataclass
class _TimedLayers:
    """Layers whose times the same choices decide.

    Parameters
    ----------
    labels
        Of these choices.
    features
        Of each combination: multiply-adds, elements read and written, and number of layers.
    samples
        Milliseconds that were seen of each combination.
    """

    labels: DecidingLabels
    features: dict[tuple[Any, ...], npt.NDArray[np.float64]] = field(default_factory=dict)
    samples: dict[tuple[Any, ...], list[float]] = field(default_factory=lambda: defaultdict(list))


def _units(space: ModelSpace) -> list[str]:
    """Return the names of the units that are not inside of others."""
    names = [name for name, x in space.named_modules() if isinstance(x, LayerChoice)]
    return [x for x in names if not any(x.startswith(f"{other}.") for other in names)]


def _tabulate(
    space: PathSpace,
    units: Sequence[str],
    described: Sequence[Layer],
    paths: Sequence[Path],
    times: Sequence[Mapping[str, float]],
) -> CostTable:
    """Return a table of what layers take, without a constant."""
    owners = {layer.name: _owner(layer.name, units) for layer in described}
    labels: dict[str, set[str]] = defaultdict(set)
    for layer in described:
        labels[owners[layer.name]] |= {label for label, _ in layer.condition}
    blocks = {
        owner: tuple(x for x in space if x in found) for owner, found in labels.items() if found
    }
    groups = {owner: _TimedLayers(found) for owner, found in blocks.items()}
    for owner, group in groups.items():
        own = [layer for layer in described if owners[layer.name] == owner]
        for combination in itertools.product(*(space[x] for x in group.labels)):
            made = dict(zip(group.labels, combination, strict=True))
            group.features[combination] = _features(own, made)
    for path, found in zip(paths, times, strict=True):
        for owner, group in groups.items():
            combination = tuple(path[x] for x in group.labels)
            taken = sum(ms for name, ms in found.items() if _is_inside(name, owner))
            group.samples[combination].append(taken)
    factors = [_factor(group, space) for group in groups.values()]
    return CostTable("units", space, 0.0, factors)


def _owner(name: str, units: Sequence[str]) -> str:
    """Return the unit that a layer is in, or the layer."""
    return next((x for x in units if _is_inside(name, x)), name)


def _is_inside(name: str, owner: str) -> bool:
    return name == owner or name.startswith(f"{owner}.")


def _features(layers: Sequence[Layer], made: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    found = np.zeros(3)
    for layer in layers:
        if all(made[label] == choice for label, choice in layer.condition):
            elements = math.prod(layer.input_shape) + math.prod(layer.output_shape)
            bits = (layer.weight_bits or 32) / 32
            found += [layer.macs * bits, elements, 1]
    return found


def _factor(group: _TimedLayers, space: PathSpace) -> Factor:
    """Return what each combination takes: its median, or by a line through all that were seen."""
    combinations = list(group.features)
    shape = [len(space[x]) for x in group.labels]
    if all(len(group.samples.get(x, ())) >= SEEN_FOR_MEDIAN for x in combinations):
        medians = [float(np.median(group.samples[x])) for x in combinations]
        return Factor(group.labels, np.array(medians).reshape(shape))
    rows = [group.features[x] for x, seen in group.samples.items() for _ in seen]
    taken = [ms for seen in group.samples.values() for ms in seen]
    matrix = np.array(rows)
    scale = np.where(matrix.max(axis=0) > 0, matrix.max(axis=0), 1.0)
    weights, _ = nnls(matrix / scale, np.array(taken))
    table = np.array([group.features[x] / scale @ weights for x in combinations])
    return Factor(group.labels, table.reshape(shape))


def _validate(
    units: CostTable,
    space: PathSpace,
    paths: Sequence[Path],
    measured: npt.NDArray[np.float64],
    num_fitted: int,
) -> tuple[CostTable, LatencyValidation]:
    """Fit what all paths share to the first ones, and compare with the others."""
    rest = measured - units.price_many(space.encode(paths))
    constant = max(0.0, float(np.median(rest[:num_fitted])))
    costs = CostTable(latency_metric(RUNTIME), space, constant, units.factors)
    predicted = costs.price_many(space.encode(paths[num_fitted:]))
    return costs, LatencyValidation.compare(predicted.tolist(), measured[num_fitted:].tolist())


def _count_flops(space: ModelSpace, shape: Sequence[int]) -> CostTable | None:
    try:
        return build_costs(space, shape)["flops"]
    except CostError:  # latencies need no formulas
        return None
