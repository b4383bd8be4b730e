"""Latencies in OpenVINO, which tells after each run what its operators took."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.export.base import Array
from nni_spos.export.runtimes import compile_openvino
from nni_spos.latency.runtimes.base import DeployedRuntime, ProfiledNetwork, RunImages, layer_of

MILLISECOND = timedelta(milliseconds=1)

_REORDERED = re.compile(r".*_[a-z]+_[a-z]+_(/.*)")
"""What brings a tensor into another memory format has the name of who gives and of who takes it."""


class OpenVino(DeployedRuntime):
    """OpenVINO's CPU plug-in, in single precision, tuned for latency."""

    packages = ("openvino",)
    extra = "openvino"

    @property
    def version(self) -> str:
        import openvino

        return f"OpenVINO {openvino.get_version().split('-')[0]}"

    def open(self, content: bytes, threads: int) -> RunImages:
        request = compile_openvino(content, threads).create_infer_request()
        return lambda images: request.infer([images])

    def open_profiled(self, content: bytes, threads: int, folder: FilePath) -> ProfiledNetwork:
        return _OpenVinoProfile(compile_openvino(content, threads, PERF_COUNT="YES"))


class _OpenVinoProfile(ProfiledNetwork):
    def __init__(self, compiled: Any):
        self._request = compiled.create_infer_request()
        self._runs: list[dict[str, float]] = []

    def run(self, images: Array) -> None:
        self._request.infer([images])
        layers: dict[str, float] = {}
        for operator in self._request.profiling_info:
            name = operator_layer(operator.node_name)
            layers[name] = layers.get(name, 0.0) + operator.real_time / MILLISECOND
        self._runs.append(layers)

    def layer_runs(self) -> Mapping[str, npt.NDArray[np.float64]]:
        names = {name for layers in self._runs for name in layers}
        return {name: np.array([x.get(name, 0.0) for x in self._runs]) for name in names}


def operator_layer(name: str) -> str:
    """Return the layer of an operator by its name in the profile; "" if it is of none.

    >>> operator_layer("/stem/stem.0/Conv"), operator_layer("outputs")
    ('stem.0', '')
    >>> operator_layer("images_abcd_acdb_/stem/stem.0/Conv")
    'stem.0'
    """
    if match := _REORDERED.fullmatch(name):
        name = match[1]
    # A part of an operator has its name, and one more: then this is a name inside of the layer.
    return layer_of(name)
