"""Quantized networks in ONNX: the integers that are stored, and what onnxruntime computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from networks_to_export import write_retrained
from torch import nn

import nni_spos
from nni_spos.export.integers import IntegerLayer, prepare_quantized
from nni_spos.mutables.quantization import QuantizedConv2d, QuantizedLinear
from nni_spos.mutables.quantizer_kinds import find_quantizer

QUANTIZERS = ("dorefa", "symmetric")


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def layer(weight_bits, activation_bits, quantizer, **options):
    options = {"padding": 1, "bias": False, **options}
    return QuantizedConv2d(
        6, 8, 3, weight_bits=weight_bits, activation_bits=activation_bits, quantizer=quantizer,
        **options,
    )  # fmt: skip


def network(weight_bits, activation_bits, quantizer, **options):
    """Build two convolutions, the first of which is rounded again; statistics are those of data."""
    torch.manual_seed(0)
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits, "quantizer": quantizer}
    found = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        QuantizedConv2d(6, 8, 3, padding=1, bias=False, **bits, **options),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        QuantizedConv2d(8, 5, 1, **bits),
        nn.BatchNorm2d(5),
        nn.Flatten(),
        nn.ReLU(),
        QuantizedLinear(5 * 64, 4, **bits),
    )
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 1.0)  # also negative ones
            nn.init.normal_(module.bias)
    with torch.no_grad():
        for _ in range(3):
            found.train()(images(16, 3, 8, 8))
    return found.eval()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_integers_times_their_scale_are_the_weights(quantizer, bits):
    found = layer(bits, 4, quantizer)
    kind = find_quantizer(quantizer)
    integers = kind.integers(found.weight, found.weight_factor, bits)
    scale = integers.scale.view(-1, 1, 1, 1)
    _, weight = found.operands_of(images(1, 6, 4, 4).abs())
    torch.testing.assert_close(integers.values * scale, weight, rtol=1e-6, atol=0)
    if quantizer == "dorefa":
        assert bool((integers.values % 2 == 1).all())
        assert integers.values.abs().max() == 2**bits - 1
    else:
        assert integers.values.min() >= -(2 ** (bits - 1))
        assert integers.values.max() <= 2 ** (bits - 1) - 1


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("weight_bits", [2, 3, 4, 7, 8, 32])
@pytest.mark.parametrize("activation_bits", [4, 8, 32])
def test_a_prepared_network_computes_the_same(quantizer, weight_bits, activation_bits):
    found = network(weight_bits, activation_bits, quantizer)
    prepared = prepare_quantized(found)
    x = images(4, 3, 8, 8)
    torch.testing.assert_close(prepared(x), found(x), rtol=1e-4, atol=1e-4)
    stored = {x.weight.dtype for x in prepared.modules() if isinstance(x, IntegerLayer)}
    assert stored == ({torch.float32} if weight_bits == 32 else {torch.int8})
    assert prepared.minimal_opset == (21 if weight_bits <= 4 else 18)


def test_a_float_network_is_left_alone_and_a_layer_used_twice_stays_one():
    plain = nn.Sequential(nn.Conv2d(1, 1, 1))
    assert prepare_quantized(plain) is plain
    twice = QuantizedConv2d(2, 2, 1, weight_bits=4, activation_bits=8, quantizer="symmetric")
    found = nn.Sequential(twice, nn.ReLU(), twice)
    prepared = prepare_quantized(found)
    assert prepared[0] is prepared[2]
    assert found[0] is twice
    x = images(1, 2, 3, 3).abs()
    torch.testing.assert_close(prepared(x), found.eval()(x), rtol=1e-5, atol=1e-5)


def exported(found, x):
    """Return the model in ONNX as it is exported, a session of onnxruntime, and its operators."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from nni_spos.export.integer_graph import finish_quantized

    prepared = prepare_quantized(found)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(prepared, (x,), dynamic_shapes=shapes, strict=False)
        written = torch.onnx.export(
            program, opset_version=getattr(prepared, "minimal_opset", 18), verbose=False
        )
    model = finish_quantized(written.model_proto)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return model, session


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_retrained_network_of_a_quantized_space_is_exported_as_integers(tmp_path, quantizer):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    space = {
        "name": "resnet_small", "stage_repeats": [1, 1], "stage_channels": [4, 8],
        "channel_scales": None, "bit_pairs": [[4, 8], [8, 8]], "quantizer": quantizer,
    }  # fmt: skip
    write_retrained(tmp_path, {"bits_1": "8w8a", "bits_2": "4w8a"}, space)
    nni_spos.export_network(tmp_path / "recipe.yml", tmp_path / "exported")
    model = onnx.load(tmp_path / "exported" / "model.onnx")
    counted = operators(model)
    # Five convolutions on levels: two in the first block, three in the second.
    folded = counted["Conv"] - 1  # the stem's is of floats
    assert counted["ConvInteger"] + folded >= 5
    kinds = {x.data_type for x in model.graph.initializer if len(x.dims) == 4}
    assert onnx.TensorProto.INT4 in kinds
    assert onnx.TensorProto.UINT8 in kinds


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize(
    ("weight_bits", "activation_bits"),
    [(1, 2), (2, 2), (3, 4), (4, 4), (4, 8), (5, 8), (8, 4), (8, 8), (32, 8), (8, 32)],
)
def test_onnxruntime_computes_what_the_network_computes(quantizer, weight_bits, activation_bits):
    if quantizer == "symmetric" and weight_bits == 1:
        weight_bits = 2
    found, x = network(weight_bits, activation_bits, quantizer), images(64, 3, 8, 8)
    model, session = exported(found, x[:2])
    (name,) = (value.name for value in session.get_inputs())
    (outputs,) = session.run(None, {name: x.numpy()})
    with torch.no_grad():
        expected = found(x).numpy()
    assert (outputs.argmax(1) == expected.argmax(1)).mean() >= 0.98
    assert np.abs(outputs - expected).mean() < 0.02 * np.abs(expected).mean()
    domains = {node.domain for node in model.graph.node}
    assert domains <= {"", "ai.onnx"}
    if weight_bits != 32 and activation_bits != 32:
        counted = operators(model)
        assert counted["BatchNormalization"] == 0
        assert counted["Gemm"] == counted["MatMul"] == 0
