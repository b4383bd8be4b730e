"""Runtimes of the CPU in which latencies are measured: one file and one line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nni_spos.components import load

if TYPE_CHECKING:
    from nni_spos.latency.runtimes.base import DeployedRuntime

RUNTIMES: Mapping[str, str] = {
    "onnxruntime": "nni_spos.latency.runtimes.in_onnxruntime:OnnxRuntime",
    "openvino": "nni_spos.latency.runtimes.in_openvino:OpenVino",
}
"""Module and class by the name that recipes and commands use."""


def open_runtime(name: str) -> DeployedRuntime:
    """Return a runtime. Raises ExportError if its packages are not installed.

    Parameters
    ----------
    name
        One of `RUNTIMES`.
    """
    from nni_spos.export.base import check_packages

    found: type[DeployedRuntime] = load(RUNTIMES[name])
    check_packages(("onnx",), "onnx", f"runtime {name}")
    check_packages(found.packages, found.extra, f"runtime {name}")
    return found()
