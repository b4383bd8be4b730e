"""Latencies in onnxruntime, whose profile is a file with all runs."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.export.base import Array
from nni_spos.export.runtimes import open_onnx_session
from nni_spos.latency.runtimes.base import DeployedRuntime, ProfiledNetwork, RunImages, layer_of

_TO_BLOCKS, _FROM_BLOCKS = "ReorderInput", "ReorderOutput"
"""Operators that bring a tensor into blocks of channels and back."""

_KERNEL = re.compile(r"(/\S*?)(_output_\d+)?(_nchwc|_token_\d+|_quant)?_kernel_time")


class OnnxRuntime(DeployedRuntime):
    """onnxruntime with its own kernels for the CPU."""

    packages = ("onnxruntime",)
    extra = "onnx"

    @property
    def version(self) -> str:
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def open(self, content: bytes, threads: int) -> RunImages:
        session = open_onnx_session(content, threads)
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})

    def open_profiled(self, content: bytes, threads: int, folder: FilePath) -> ProfiledNetwork:
        prefix = folder / f"{len(list(folder.iterdir()))}"
        return _OnnxRuntimeProfile(open_onnx_session(content, threads, profile=prefix))


class _OnnxRuntimeProfile(ProfiledNetwork):
    def __init__(self, session: Any):
        self._session = session
        self._name = session.get_inputs()[0].name
        self._runs = 0

    def run(self, images: Array) -> None:
        self._session.run(None, {self._name: images})
        self._runs += 1

    def layer_runs(self) -> Mapping[str, npt.NDArray[np.float64]]:
        file = FilePath(self._session.end_profiling())
        taken: dict[str, list[float]] = defaultdict(list)
        for event in json.loads(file.read_text(encoding="utf-8")):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                taken[event["name"]].append(event["dur"] / 1e3)
        owners = operator_layers(list(taken))
        layers: dict[str, Any] = defaultdict(lambda: np.zeros(self._runs))
        for name, times in taken.items():
            count = max(1, round(len(times) / self._runs))  # of operators of one name
            each = np.full(count * self._runs, np.nan)  # a profile that is full ends early
            each[: len(times)] = times[: len(each)]
            layers[owners[name]] += each.reshape(-1, count).sum(axis=1)
        return dict(layers)


def operator_layers(events: Sequence[str]) -> dict[str, str]:
    """Return the layer of each operator of a run by its name in the profile; "" if it is of none.

    What brings a tensor into the memory format of a convolution is of that layer, which comes next.
    What brings it back is of the layer before. Whether they are needed depends on its widths.

    Parameters
    ----------
    events
        All different, in the order in which they ran first.

    >>> operator_layers(["ReorderInput_kernel_time", "/a/0/op_4_output_0_nchwc_kernel_time"])
    {'ReorderInput_kernel_time': 'a.0', '/a/0/op_4_output_0_nchwc_kernel_time': 'a.0'}
    """
    matches = [_KERNEL.fullmatch(event) for event in events]
    layers = [layer_of(match[1]) if match else "" for match in matches]
    for i in range(1, len(events)):
        if events[i].startswith(_FROM_BLOCKS):
            layers[i] = layers[i - 1]
    for i in reversed(range(len(events) - 1)):
        if events[i].startswith(_TO_BLOCKS):
            layers[i] = layers[i + 1]
    return dict(zip(events, layers, strict=True))
