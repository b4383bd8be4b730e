"""Float networks as whole numbers of 8 bits, by onnxruntime's own static quantization."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as FilePath

from torch import nn

from nni_spos.export.base import Array
from nni_spos.export.tracing import INPUT, quiet
from nni_spos.mutables.quantization import Quantized


def is_quantized(network: nn.Module) -> bool:
    """Whether a network has bit widths that were searched."""
    return any(isinstance(module, Quantized) for module in network.modules())


def quantize_int8(file: FilePath, images: Iterator[Array]) -> None:
    """Replace an ONNX file by one of QuantizeLinear and DequantizeLinear around integer weights.

    Weights have a scale for each channel, activations one for each tensor.

    Parameters
    ----------
    file
        Of a float network.
    images
        Batches that the ranges of activations are measured with, as the network takes them.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class CalibrationReader(CalibrationDataReader):
        def get_next(self) -> dict[str, Array] | None:
            found = next(images, None)
            return None if found is None else {INPUT: found}

    prepared = file.with_suffix(".prepared.onnx")
    try:
        with quiet():
            quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(file),
                CalibrationReader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                # Of weights 7 bits: processors without VNNI add up two products of 8 bits in 16,
                # which saturate, and outputs are then wrong without a word.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        if prepared.exists():
            os.unlink(prepared)
