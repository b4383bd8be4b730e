"""Costs of layers whose arguments are choices."""

import itertools
import math

import nni
import pytest
import torch
from layer_chain import IMAGE, Chain, conv, head, width
from nni.nas.nn.pytorch import LayerChoice
from torch import nn

from nni_spos.mutables import (
    MutableBatchNorm2d,
    QuantConv2d,
    QuantLinear,
    SwitchableBatchNorm2d,
    bits_choice,
)
from nni_spos.path import PathSpace
from nni_spos.profilers import build_costs
from nni_spos.profilers.trace import trace_space
from nni_spos.supernet import SinglePathOneShot


def channels():
    w = width()
    yield from [conv(3, w, 3), MutableBatchNorm2d(w), nn.ReLU(), conv(w, 5, bias=False)]


def two_labels():
    """A layer between two choices costs the product of both."""
    one, other = width("one"), width("other", (2, 4))
    yield from [conv(3, one), conv(one, other, 3), MutableBatchNorm2d(other), *head(other)]


def expressions():
    w = width()
    yield from [conv(3, w * 2), conv(w * 2, w // 2 + 1), conv(w // 2 + 1, 7), *head(7)]


def joint_expression():
    """The arguments of one layer depend on two labels through one expression."""
    one, other = width("one"), width("other", (1, 2))
    yield from [conv(3, one * other), conv(one * other, 2)]


def depthwise():
    w = width()
    yield from [conv(3, w), conv(w, w, 3, groups=w), conv(w, 4)]


def groups():
    yield conv(3, 8)
    yield conv(8, 12, 3, groups=nni.choice("groups", [1, 2, 4]))


def kernel_size():
    """Padding of half the kernel keeps the size of the image."""
    kernel, other = nni.choice("kernel", [1, 3, 5]), nni.choice("other", [3, 1])
    yield from [conv(3, 4, kernel), conv(4, width(), other)]


def last_stride():
    """What is behind a pooling to one pixel does not see the stride."""
    yield conv(3, 4, 3, stride=nni.choice("stride", [1, 2, 3]))
    yield from head(4)


def inside_units():
    w = width()
    wide = nn.Sequential(conv(3, w), conv(w, 5))
    yield LayerChoice({"plain": nn.Conv2d(3, 5, 1), "wide": wide}, label="unit")
    yield LayerChoice([nn.Identity(), conv(5, 5, nni.choice("kernel", [1, 3]))], label="last")


def nested_units():
    w = width()
    inner = LayerChoice({"a": conv(w, 5), "b": conv(w, 5, 3)}, label="inner")
    deep = nn.Sequential(conv(3, w), inner)
    yield LayerChoice({"deep": deep, "plain": nn.Conv2d(3, 5, 1)}, label="outer")


def shared_with_a_unit():
    """One label for a unit and for layers before it, inside of it and behind it."""
    place = nni.choice("unit", [0, 1, 2])
    w = place * 2 + 4
    blocks = [conv(w, w), nn.Sequential(conv(w, w, 3), conv(w, w)), nn.Identity()]
    yield from [conv(3, w), LayerChoice(blocks, label="unit"), conv(w, 3), *head(3)]


def shared_inside_a_unit():
    """A block's inner channels follow the choice of the block itself."""
    inner = nni.choice("unit", [0, 1, 2]) * 3 + 1
    blocks = [nn.Sequential(conv(3, inner, k), conv(inner, 4)) for k in (5, 1, 3)]
    yield LayerChoice(blocks, label="unit")


def used_twice():
    """It costs twice, its parameters count once."""
    w = width()
    layer = conv(w, w, 3)
    yield from [conv(3, w), layer, nn.ReLU(), layer]


def without_choices():
    yield from [conv(3, 4, 3), MutableBatchNorm2d(4), conv(4, width()), *head(width())]


def quantized():
    """Two labels for the bits of one layer."""
    bits = {"weight_bits": nni.choice("w", [1, 3, 32]), "activation_bits": nni.choice("a", [4, 32])}
    yield from [QuantConv2d(3, 5, 3, padding=1, signed=True, bias=False, **bits), nn.ReLU()]
    # 45 bits of bias and weights at 3 bits do not fill whole bytes.
    yield from [nn.AdaptiveAvgPool2d(1), nn.Flatten(), QuantLinear(5, 3, **bits)]


def quantized_channels():
    w, bits = width(), bits_choice("bits", [(2, 4), (4, 4), (1, 2)])
    pair = {"weight_bits": bits.weight, "activation_bits": bits.activation}
    yield from [nn.ReLU(), QuantConv2d(3, w, 3, padding=1, **pair)]
    yield from [SwitchableBatchNorm2d(w, **pair), nn.ReLU(), QuantConv2d(w, 4, 1, **pair)]
    # Fixed bits, and a layer that is not quantized.
    yield from [nn.ReLU(), QuantConv2d(4, 4, 1, weight_bits=8, activation_bits=8), conv(4, 2)]


def quantized_in_a_unit():
    bits = nni.choice("w", [2, 5])
    yield nn.ReLU()
    quantized = QuantConv2d(3, 4, 1, weight_bits=bits, activation_bits=3)
    yield LayerChoice({"quantized": quantized, "plain": nn.Conv2d(3, 4, 1)}, label="unit")


SPACES = [
    channels, two_labels, expressions, joint_expression, depthwise, groups, kernel_size,
    last_stride, inside_units, nested_units, shared_with_a_unit, shared_inside_a_unit, used_twice,
    without_choices, quantized, quantized_channels, quantized_in_a_unit,
]  # fmt: skip


def brute_force(network):
    """Count on a real network what runs through its layers, and what they hold."""
    found = {"flops": 0, "bitops": 0, "params": 0, "size_bytes": 0}

    def count(layer, _, output):
        layer_macs = output.numel() * layer.weight[0].numel()
        found["flops"] += layer_macs
        if hasattr(layer, "weight_bits"):
            found["bitops"] += layer_macs * layer.weight_bits * layer.activation_bits

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
        for name, parameter in layer.named_parameters(recurse=False):
            is_quantized = name == "weight" and isinstance(layer, nn.Conv2d | nn.Linear)
            bits = getattr(layer, "weight_bits", 32) if is_quantized else 32
            found["params"] += parameter.numel()
            found["size_bytes"] += math.ceil(parameter.numel() * bits / 8)
    with torch.no_grad():
        network.eval()(torch.rand(1, *IMAGE))
    return found


CASES = [
    pytest.param(layers, mutated, id=f"{layers.__name__}-{'supernet' if mutated else 'space'}")
    for layers, mutated in itertools.product(SPACES, [False, True])
]


@pytest.mark.parametrize(("layers", "mutated"), CASES)
def test_every_path_costs_what_its_network_does(layers, mutated):
    space = Chain(layers)
    if mutated:
        SinglePathOneShot().mutate_model(space)
    costs = build_costs(space, IMAGE)
    assert len(costs) == (4 if layers.__name__.startswith("quantized") else 2)
    path_space = PathSpace.from_model_space(space)
    assert path_space.size > 1
    for path in path_space.decode(path_space.enumerate()):
        expected = brute_force(Chain.frozen_factory(path)(layers))
        for metric, table in costs.items():
            assert table.price(path) == expected[metric], (metric, path)


def test_a_table_by_hand():
    costs = build_costs(Chain(two_labels), IMAGE)
    path = {"one": 6, "other": 4}
    # 36 pixels of 6 outputs from 3 inputs, of 4 outputs from 3x3 of 6 inputs; 5 classes of 4.
    assert costs["flops"].price(path) == 36 * (6 * 3 + 4 * 9 * 6) + 5 * 4
    # Weights and biases of both convolutions, BatchNorm and classifier.
    assert costs["params"].price(path) == (18 + 6) + (216 + 4) + 2 * 4 + (20 + 5)
    labels = [factor.labels for factor in costs["flops"].factors]
    assert sorted(labels) == [("one",), ("one", "other"), ("other",)]


def test_bits_by_hand():
    costs = build_costs(Chain(quantized), IMAGE)
    path = {"w": 3, "a": 4}
    # 36 pixels of 5 outputs from 3x3 of 3 inputs, and 3 classes of 5, at 3 x 4 bits.
    assert costs["bitops"].price(path) == (36 * 5 * 27 + 15) * 12
    # 135 and 15 weights of 3 bits, 3 biases and 2 clipping values of 4 bytes.
    assert costs["size_bytes"].price(path) == 51 + 6 + 4 * (3 + 2)


def test_calls_name_every_combination_of_a_layers_choices():
    calls = [
        call for call in trace_space(Chain(two_labels), IMAGE).calls if "layers.1" in call.name
    ]
    assert [(call.condition, call.input_shape, call.output_shape) for call in calls] == [
        ((("one", one), ("other", other)), (1, one, 6, 6), (1, other, 6, 6))
        for one, other in itertools.product((4, 6, 10), (2, 4))
    ]
    assert [call.module.weight.shape for call in calls[:2]] == [(2, 4, 3, 3), (4, 4, 3, 3)]
    assert all(call.module.weight.is_meta for call in calls)
    (relu,) = [call for call in trace_space(Chain(channels), IMAGE).calls if "s.2" in call.name]
    assert relu.varies
