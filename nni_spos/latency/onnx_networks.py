"""Networks as ONNX in memory, to be timed: written fast, and with the names of their layers."""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from nni_spos.errors import CostError, ExportError, text_of
from nni_spos.export.images import InputImages
from nni_spos.export.quantizing import is_quantized
from nni_spos.export.tracing import quiet
from nni_spos.latency.operator_names import name_by_layer
from nni_spos.latency.runtimes.base import layer_of

OPSET = 17


def as_onnx(network: nn.Module, images: torch.Tensor, layers: Collection[str]) -> bytes:
    """Return a network as ONNX, whose operators have the names of their layers.

    Parameters
    ----------
    network
        Of one path.
    images
        Shape (N, C, H, W): the file takes as many, of this size.
    layers
        Dotted names of layers and units that operators are named after, see `name_by_layer`.

    Raises
    ------
    ExportError
        It cannot be written.
    CostError
        It has bit widths and rounds floats: these have no kernels of whole numbers.
    """
    if is_quantized(network):
        return _integers_as_onnx(network, images, layers)
    import onnx

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
    model = onnx.load_model_from_string(stream.getvalue())
    name_by_layer(model, layers, lambda node: layer_of(node.name))
    content: bytes = model.SerializeToString()
    return content


def _integers_as_onnx(network: nn.Module, images: torch.Tensor, layers: Collection[str]) -> bytes:
    """Return a network with bit widths as one of whole numbers. Raises CostError."""
    from nni_spos.export.base import ExportForm, Model
    from nni_spos.export.integers import prepare_quantized
    from nni_spos.export.onnx_format import LEAST_OPSET
    from nni_spos.export.onnx_format import as_onnx as as_model

    with torch.no_grad():
        network.eval()(images)  # so that nothing waits for its first images
    prepared = prepare_quantized(network)
    if is_quantized(prepared):
        raise CostError(
            "the networks of this space round floats to their bit widths, which no runtime has "
            "kernels for. Use the quantizer symmetric, whose networks compute with whole numbers."
        )
    channels, height, width = images.shape[1:]
    kind = InputImages(channels, height, width, 8, (0.5,) * channels, (0.5,) * channels, height)
    opset = int(getattr(prepared, "minimal_opset", LEAST_OPSET))
    proto = as_model(Model(prepared, kind, ExportForm(batch=len(images))), opset)
    name_by_layer(proto, layers, _module_of)
    content: bytes = proto.SerializeToString()
    return content


def _module_of(node: Any) -> str:
    """Return the module that has the weights of an operator, else the one that PyTorch notes."""
    for name in node.input:
        if name.startswith("network.") and name.endswith(".weight"):  # BatchNorm is folded into it
            return name.removeprefix("network.").removesuffix(".weight")
    scopes = next((x.value for x in node.metadata_props if x.key.endswith("name_scopes")), "[]")
    names = [name for name in json.loads(scopes.replace("'", '"')) if name]
    return names[-2].removeprefix("network.") if len(names) > 1 else ""
