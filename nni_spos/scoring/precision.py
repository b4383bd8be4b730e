"""In which precision paths are scored."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from nni_spos.mutables.quantization import Quantized


def scoring_precision(network: nn.Module, precision: str) -> AbstractContextManager[Any]:
    """Return a context in which a network runs in a precision.

    Parameters
    ----------
    network
        On the device that it runs on.
    precision
        ``32-true``, ``16-mixed``, ``bf16-mixed``, or ``auto``: 16-mixed on CUDA, where it is
        faster, but not for quantized layers, whose levels flip where a digit is lost.
    """
    parameter = next(network.parameters(), None)
    device_type = parameter.device.type if parameter is not None else "cpu"
    if precision == "auto":
        is_quantized = any(isinstance(module, Quantized) for module in network.modules())
        precision = "16-mixed" if device_type == "cuda" and not is_quantized else "32-true"
    if precision == "32-true":
        return nullcontext()
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device_type, dtype=dtype)
