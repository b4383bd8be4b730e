"""Runtimes that run exported networks: each imports what it needs when it opens a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from nni_spos.errors import ExportError, text_of, unknown
from nni_spos.export.base import Array, Run, check_packages


def open_onnxruntime(file: FilePath, threads: int | None = None) -> Run:
    """Open an ONNX file in onnxruntime, on the CPU. Raises ExportError if it is damaged."""
    check_packages(("onnxruntime",), "onnx", "runtime onnxruntime")
    with _explained(file):
        session = open_onnx_session(str(file), threads)
    name = session.get_inputs()[0].name

    def run(images: Array) -> Array:
        return np.asarray(session.run(None, {name: images})[0])

    return run


def open_onnx_session(
    model: str | bytes, threads: int | None = None, profile: FilePath | None = None
) -> Any:
    """Return a session of onnxruntime, on the CPU.

    Parameters
    ----------
    model
        Name of an ONNX file, or its content.
    threads
        Of one operator; None: onnxruntime's own number.
    profile
        Where its profile begins its name with this; None: there is none.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_torch(file: FilePath, threads: int | None = None) -> Run:
    """Open a program of ``torch.export`` in PyTorch. Raises ExportError if it is damaged."""
    import torch

    with _explained(file):
        module = torch.export.load(file).module()
    return as_run(module, threads)


def as_run(network: Any, threads: int | None = None) -> Run:
    """Return what runs a network of PyTorch's."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)

    def run(images: Array) -> Array:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(images)).numpy())

    return run


def open_openvino(file: FilePath, threads: int | None = None) -> Run:
    """Open an ONNX file in OpenVINO, on the CPU. Raises ExportError if it is damaged."""
    check_packages(("openvino",), "openvino", "runtime openvino")
    with _explained(file):
        compiled = compile_openvino(str(file), threads)

    def run(images: Array) -> Array:
        return np.asarray(compiled(images)[0])

    return run


def compile_openvino(model: str | bytes, threads: int | None = None, **properties: str) -> Any:
    """Return a network that OpenVINO has compiled for the CPU, in single precision.

    Parameters
    ----------
    model
        Name of an ONNX file, or its content.
    threads
        Of one network; None: OpenVINO's own number.
    properties
        Further ones of OpenVINO.
    """
    import openvino

    core = openvino.Core()
    given = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", **properties}
    if threads is not None:
        given["INFERENCE_NUM_THREADS"] = str(threads)
    return core.compile_model(core.read_model(model), "CPU", given)


RUNTIMES: Mapping[str, Callable[[FilePath, int | None], Run]] = {
    "onnxruntime": open_onnxruntime,
    "torch": open_torch,
    "openvino": open_openvino,
}

FILES: Mapping[str, str] = {
    "onnxruntime": "model.onnx",
    "torch": "model.pt2",
    "openvino": "model.onnx",
}
"""The file of an exported folder that each runtime runs."""


def find_runtime(name: str) -> Callable[[FilePath, int | None], Run]:
    """Return what opens a file in a runtime. Raises ExportError for an unknown name."""
    if name not in RUNTIMES:
        raise ExportError(unknown("runtime", name, RUNTIMES))
    return RUNTIMES[name]


@contextlib.contextmanager
def _explained(file: FilePath) -> Any:
    if not file.is_file():
        raise ExportError(f"{file}: no such file.")
    try:
        yield
    except Exception as problem:
        raise ExportError(f"{file}: cannot be run ({text_of(problem):.300}).") from problem
