"""The program of a network, as PyTorch traces it, and why there is none."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import nn

from nni_spos.errors import ExportError, SposError
from nni_spos.export.base import Model

INPUT, OUTPUT = "images", "outputs"
"""Names of what an exported network takes and returns."""

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_PYTORCHS = (f"{FilePath(torch.__file__).parent}/", "<")


def trace(model: Model) -> torch.export.ExportedProgram:
    """Trace a network with as many images at a time as its form says.

    Raises
    ------
    ExportError
        It cannot be traced; the message names the line that is to blame.
    """
    batch = model.form.batch
    example = torch.from_numpy(model.example(batch or 2))
    shapes = None if batch else ({0: torch.export.Dim("batch", min=1)},)
    network = _Named(model.network).eval()
    with torch.no_grad(), quiet():
        try:
            return torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)
        except SposError:
            raise
        except Exception as problem:  # of a user's network, in PyTorch's many words
            text = _first_line(problem)
            if not batch and _is_traceable(network, example):
                raise ExportError(
                    "the network is written for a fixed number of images at a time"
                    f"{_where(problem)}: {text}. Export it with --static, or let it take the size "
                    "of the batch from its input, such as by x.flatten(1)."
                ) from problem
            raise ExportError(
                f"the network cannot be traced{_where(problem)}: {text}. What it computes must not "
                "depend on the values of the images."
            ) from problem


class _Named(nn.Module):
    """Gives the input of a network its name."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)


def _is_traceable(network: nn.Module, example: torch.Tensor) -> bool:
    try:
        torch.export.export(network, (example,), strict=False)
    except Exception:
        return False
    return True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's exporters from writing pages of what they do."""
    names = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _first_line(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    text = lines[0] if lines else type(problem).__name__
    return text[:300].rstrip(".")


def _where(problem: BaseException) -> str:
    """Return the line of the network's own code where tracing failed, or ""."""
    frame = None
    step = problem.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        is_own = not code.co_filename.startswith(_PYTORCHS) and code.co_filename != __file__
        if is_own and ("forward" in code.co_name or frame is not None):
            frame = f"{FilePath(code.co_filename).name}, line {step.tb_lineno}"
        step = step.tb_next
    return f" ({frame})" if frame else ""


def place_of(node: Any) -> str:
    """Return the layer and the line that an operator of a trace comes from, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    layers = [str(name) for name, _ in stack.values() if name]
    layer = layers[-1].removeprefix("network").removeprefix(".") if layers else ""
    lines = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [x for x in lines if not x[0].startswith(_PYTORCHS) and x[0] != __file__]
    where = [f"layer '{layer}'"] if layer else []
    if own:
        where.append(f"{FilePath(own[-1][0]).name}, line {own[-1][1]}")
    return ", ".join(where)
