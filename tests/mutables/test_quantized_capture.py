"""Quantized networks are captured as graphs without having run before."""

from __future__ import annotations

import pytest
import torch
from small_spaces import images
from torch import nn

from nni_spos.mutables.quantization import QuantizedConv2d, QuantizedLinear

QUANTIZERS = ("dorefa", "symmetric")


def network(quantizer):
    options = {"weight_bits": 4, "activation_bits": 4, "quantizer": quantizer}
    return nn.Sequential(
        QuantizedConv2d(2, 4, 3, signed=True, **options),
        nn.ReLU(),
        QuantizedConv2d(4, 4, 3, **options),
        nn.ReLU(),
        nn.Flatten(),
        QuantizedLinear(64, 3, **options),
    ).eval()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.slow
def test_a_network_is_captured_before_its_first_batch(quantizer, strict):
    found, x = network(quantizer), images(2, 2, 8, 8)
    program = torch.export.export(found, (x,), strict=strict)
    other = images(2, 2, 8, 8) * 3
    torch.testing.assert_close(program.module()(other), found(other))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_capture_does_not_count_as_the_first_batch(quantizer):
    layer = QuantizedConv2d(2, 2, 1, weight_bits=4, activation_bits=4, quantizer=quantizer).eval()
    torch.export.export(layer, (images(1, 2, 3, 3),))
    with pytest.raises(Exception, match="quantizes activations from 0 up"):
        layer(images(1, 2, 3, 3))
