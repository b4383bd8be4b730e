"""Convolutions and linear layers that share weights, against layers whose weights are cut by hand.

Every case says how the layer is made from choices, and which plain layer a path has.
"""

from __future__ import annotations

import pytest
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from small_spaces import (
    WAYS,
    Chain,
    assert_close,
    build_supernet,
    choose,
    computed,
    images,
    paths_of,
    set_path,
    state_of,
)
from torch import nn

from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import MutableBatchNorm2d, MutableConv2d, MutableLinear, share_weights

C, D, K = ("c", 4, 6, 8), ("d", 3, 5), ("k", 1, 3, 5, 7)
C_OR_9 = {4: 2, 9: 9}  # groups of 4 and of 9 channels: 2 channels in a group, or 1


def conv(*arguments, **options):
    return lambda: MutableConv2d(*arguments, **options)


def same(k, *, mode, **options):
    return conv(2, choose(*D), k, padding="same", padding_mode=mode, **options)


CONVOLUTIONS = {
    "both widths": (conv(choose(*C), choose(*D), 3), lambda c, d: (c, d, 3)),
    "no bias": (
        conv(choose(*C), choose(*D), 3, bias=False),
        lambda c, d: ((c, d, 3), {"bias": False}),
    ),
    "inputs only": (conv(choose(*C), 5, (3, 5)), lambda c: (c, 5, (3, 5))),
    "outputs only": (conv(2, choose(*D), 1, bias=False), lambda d: ((2, d, 1), {"bias": False})),
    "odd kernels": (
        conv(choose(*C), 3, choose(*K), padding=choose(*K) // 2),
        lambda c, k: (c, 3, k, 1, k // 2),
    ),
    "all kernels": (
        conv(2, choose(*D), choose("k", *range(1, 8)), 1, choose("k", *range(1, 8)) // 2),
        lambda d, k: (2, d, k, 1, k // 2),
    ),
    "oblong kernels": (
        conv(
            2,
            3,
            computed(lambda k: (k, 2), choose("k", 1, 3, 6)),
            padding=computed(lambda k: (k // 2, 1), choose("k", 1, 3, 6)),
        ),
        lambda k: (2, 3, (k, 2), 1, (k // 2, 1)),
    ),
    "fixed groups": (
        conv(choose(*C), choose("d", 2, 6), 3, groups=2),
        lambda c, d: ((c, d, 3), {"groups": 2}),
    ),
    "depth-wise": (
        conv(choose(*C), choose(*C), choose(*K), 1, choose(*K) // 2, groups=choose(*C), bias=False),
        lambda c, k: ((c, c, k, 1, k // 2), {"groups": c, "bias": False}),
    ),
    "two outputs a channel": (
        conv(choose(*C), choose(*C) * 2, 3, groups=choose(*C)),
        lambda c: ((c, 2 * c, 3), {"groups": c}),
    ),
    "two channels a group": (
        conv(choose(*C), choose(*C) * 3, 3, groups=choose(*C) // 2),
        lambda c: ((c, 3 * c, 3), {"groups": c // 2}),
    ),
    "groups on their own": (
        conv(choose("c", 8, 16), 8, 3, groups=choose("g", 2, 4, 8)),
        lambda c, g: ((c, 8, 3), {"groups": g}),
    ),
    "groups out of proportion": (
        conv(
            choose("c", 4, 9),
            choose("c", 4, 9),
            3,
            groups=MutableExpression.switch_case(choose("c", 4, 9), C_OR_9),
        ),
        lambda c: ((c, c, 3), {"groups": C_OR_9[c]}),
    ),
    "stride": (conv(2, choose(*D), 3, choose("s", 1, 2, 3)), lambda d, s: (2, d, 3, s)),
    "dilation": (
        conv(2, choose(*D), 3, dilation=choose("t", 1, 2, 3), padding=choose("t", 1, 2, 3)),
        lambda d, t: ((2, d, 3), {"dilation": t, "padding": t}),
    ),
    "padding": (conv(2, 3, 3, padding=choose("p", 0, 1, 4)), lambda p: (2, 3, 3, 1, p)),
    "tripled inputs, eight more outputs": (
        conv(choose(*C) * 3, choose(*C) + 8, 1),
        lambda c: (3 * c, c + 8, 1),
    ),
    "half of the inputs": (conv(choose(*C) // 2, choose(*D), 3), lambda c, d: (c // 2, d, 3)),
    "valid": (
        conv(2, choose(*D), choose(*K), padding="valid", padding_mode="reflect"),
        lambda d, k: ((2, d, k), {"padding": "valid", "padding_mode": "reflect"}),
    ),
}
for mode in ("zeros", "reflect", "replicate", "circular"):
    CONVOLUTIONS[f"margins of {mode}"] = (
        conv(2, choose(*D), choose(*K), 2, choose(*K) // 2, padding_mode=mode),
        lambda d, k, mode=mode: ((2, d, k, 2, k // 2), {"padding_mode": mode}),
    )
    CONVOLUTIONS[f"same size, {mode}"] = (
        same(choose("k", *range(1, 6)), mode=mode, dilation=choose("t", 1, 2)),
        lambda d, k, t, mode=mode: (
            (2, d, k),
            {"padding": "same", "padding_mode": mode, "dilation": t},
        ),
    )
    CONVOLUTIONS[f"oblong margins of {mode}"] = (
        conv(
            2,
            choose(*D),
            (5, 2),
            padding=computed(lambda p: (p, 1), choose("p", 0, 2)),
            padding_mode=mode,
        ),
        lambda d, p, mode=mode: ((2, d, (5, 2)), {"padding": (p, 1), "padding_mode": mode}),
    )
    CONVOLUTIONS[f"oblong, same size, {mode}"] = (
        same((5, 2), mode=mode, dilation=(1, 3)),
        lambda d, mode=mode: (
            (2, d, (5, 2)),
            {"padding": "same", "padding_mode": mode, "dilation": (1, 3)},
        ),
    )

LINEARS = {
    "both widths": (lambda: MutableLinear(choose(*C), choose(*D)), lambda c, d: (c, d)),
    "no bias": (
        lambda: MutableLinear(choose(*C), choose(*D), bias=False),
        lambda c, d: ((c, d), {"bias": False}),
    ),
    "inputs only": (lambda: MutableLinear(choose(*C) * 3, 5), lambda c: (3 * c, 5)),
    "outputs only": (lambda: MutableLinear(2, choose(*C) + 8), lambda c: (2, c + 8)),
    "half": (lambda: MutableLinear(choose(*C), choose(*C) // 2), lambda c: (c, c // 2)),
}


def plain_layer(kind, arguments, path):
    """Build the layer that a case says a path has."""
    found = arguments(**path)
    positional, named = found if isinstance(found[-1], dict) else (found, {})
    return kind(*positional, **named)


def cut_convolution(layer, largest):
    """Give a convolution its part of the weights of the largest one."""
    outputs, inputs, height, width = layer.weight.shape
    top = (largest.weight.shape[2] - height) // 2
    left = (largest.weight.shape[3] - width) // 2
    with torch.no_grad():
        for o in range(outputs):
            for i in range(inputs):
                kernel = largest.weight[o, i, top : top + height, left : left + width]
                layer.weight[o, i] = kernel
            if layer.bias is not None:
                layer.bias[o] = largest.bias[o]
    return layer.eval()


def cut_linear(layer, largest):
    """Give a linear layer its part of the weights of the largest one."""
    with torch.no_grad():
        for o in range(layer.out_features):
            for i in range(layer.in_features):
                layer.weight[o, i] = largest.weight[o, i]
            if layer.bias is not None:
                layer.bias[o] = largest.bias[o]
    return layer.eval()


def assert_paths_are_what_hands_cut(supernet, x_of, expected_of):
    seen = set()
    for path in paths_of(supernet):
        expected = expected_of(path)
        x = x_of(expected)
        subnet = extract_subnet(supernet, path)
        # The whole of the layer's state: same names, and equal bit for bit.
        weights, cut = subnet.layers[0].state_dict(), expected.state_dict()
        assert list(weights) == list(cut)
        assert all(torch.equal(weights[name], cut[name]) for name in cut), path
        with torch.no_grad():
            output = supernet(x)
            assert_close(output, expected(x))
            assert_close(output, subnet(x))
        assert output.shape == expected(x).shape
        seen.add(tuple(output.flatten().tolist()))
    assert len(seen) > 1


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolutions_paths_are_what_hands_cut_out_of_the_largest(name):
    make, arguments = CONVOLUTIONS[name]
    supernet = build_supernet(make)
    largest = supernet.layers[0]
    assert_paths_are_what_hands_cut(
        supernet,
        lambda layer: images(2, layer.in_channels, 9, 11),
        lambda path: cut_convolution(plain_layer(nn.Conv2d, arguments, path), largest),
    )


@pytest.mark.parametrize("name", LINEARS)
@pytest.mark.parametrize("shape", [(3,), (2, 5)])
def test_a_linear_layers_paths_are_what_hands_cut_out_of_the_largest(name, shape):
    make, arguments = LINEARS[name]
    supernet = build_supernet(make)
    largest = supernet.layers[0]
    assert_paths_are_what_hands_cut(
        supernet,
        lambda layer: images(*shape, layer.in_features),
        lambda path: cut_linear(plain_layer(nn.Linear, arguments, path), largest),
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (CONVOLUTIONS["both widths"][0], (5, 8, 3, 3)),
        (CONVOLUTIONS["all kernels"][0], (5, 2, 7, 7)),
        (CONVOLUTIONS["oblong kernels"][0], (3, 2, 6, 2)),
        (CONVOLUTIONS["fixed groups"][0], (6, 4, 3, 3)),
        (CONVOLUTIONS["depth-wise"][0], (8, 1, 7, 7)),
        (CONVOLUTIONS["two channels a group"][0], (24, 2, 3, 3)),
        (CONVOLUTIONS["groups on their own"][0], (8, 8, 3, 3)),
        (CONVOLUTIONS["groups out of proportion"][0], (9, 2, 3, 3)),
        (CONVOLUTIONS["tripled inputs, eight more outputs"][0], (16, 24, 1, 1)),
        (LINEARS["inputs only"][0], (5, 24)),
    ],
)
def test_the_shared_weight_is_as_large_as_the_largest_path_needs(make, shape):
    supernet = build_supernet(make)
    assert supernet.layers[0].weight.shape == shape
    assert (supernet.layers[0].weight != 0).all()


def test_one_layer_under_two_names_stays_one():
    class Twice(ModelSpace):
        def __init__(self):
            super().__init__()
            self.first = MutableConv2d(2, choose(*D), 1)
            self.second = nn.Sequential(self.first, nn.ReLU())
            self.third = self.first

        def forward(self, x):
            return self.first(x) + self.second(x) + self.third(x)

    space = share_weights(Twice())
    assert space.first is space.second[0] is space.third
    assert len(list(space.parameters())) == 2
    set_path(space, {"d": 3})
    y = space.first(images(1, 2, 4, 4))
    assert torch.equal(space(images(1, 2, 4, 4)), y + y.relu() + y)


@pytest.mark.parametrize("way", WAYS)
def test_a_space_of_several_layers_is_its_paths(way):
    width = choose(*C)
    supernet = build_supernet(
        lambda: MutableConv2d(1, width, choose(*K), padding=choose(*K) // 2, bias=False),
        lambda: MutableBatchNorm2d(width),
        nn.ReLU,
        lambda: MutableConv2d(width, width, 3, groups=width),
        lambda: MutableConv2d(width, width // 2, 1),
        lambda: nn.AdaptiveAvgPool2d(1),
        nn.Flatten,
        lambda: MutableLinear(width // 2, 3),
        way=way,
    )
    before = state_of(supernet)
    x = images(2, 1, 8, 8)
    outputs = []
    for path in paths_of(supernet):
        with torch.no_grad():
            outputs.append(supernet(x))
            assert_close(outputs[-1], extract_subnet(supernet, path)(x))
    assert len({tuple(y.flatten().tolist()) for y in outputs}) == 12
    assert all(torch.equal(before[name], tensor) for name, tensor in supernet.state_dict().items())


def test_the_way_there_is_no_matter():
    states = []
    for mutate in WAYS.values():
        torch.manual_seed(0)
        states.append(mutate(Chain(CONVOLUTIONS["both widths"][0], nn.ReLU)).state_dict())
    first, second = states
    assert list(first) == list(second) == ["layers.0.weight", "layers.0.bias"]
    assert all(torch.equal(first[name], second[name]) for name in first)
