"""Transposed convolutions, norms of single images and PReLU: against layers cut by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from small_spaces import (
    Chain,
    assert_close,
    build_supernet,
    choose,
    computed,
    images,
    paths_of,
)
from torch import nn

from nni_spos.errors import SpaceError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import (
    MutableConv2d,
    MutableConvTranspose2d,
    MutableGroupNorm,
    MutableLayerNorm,
    MutableLinear,
    MutablePReLU,
    channel_labels,
    share_weights,
)
from nni_spos.profilers import build_costs, count_macs

C, D, K = ("c", 4, 6, 8), ("d", 2, 6), ("k", 2, 3, 4)


def transposed(*arguments, **options):
    return lambda: MutableConvTranspose2d(*arguments, **options)


CASES = {
    "transposed, both widths": (
        transposed(choose(*C), choose(*D), 3, 2, 1, 1),
        lambda c, d: nn.ConvTranspose2d(c, d, 3, 2, 1, 1),
    ),
    "transposed, kernels": (
        transposed(3, choose(*D), choose(*K), choose("s", 1, 2), bias=False),
        lambda d, k, s: nn.ConvTranspose2d(3, d, k, s, bias=False),
    ),
    "transposed, oblong": (
        transposed(3, 2, computed(lambda k: (k, 1), choose(*K)), dilation=choose("t", 1, 2)),
        lambda k, t: nn.ConvTranspose2d(3, 2, (k, 1), dilation=t),
    ),
    "transposed, margins": (
        transposed(3, 2, 5, 3, choose("p", 0, 2), choose("o", 0, 2)),
        lambda p, o: nn.ConvTranspose2d(3, 2, 5, 3, p, o),
    ),
    "transposed, depth-wise": (
        transposed(choose(*C), choose(*C), 3, groups=choose(*C)),
        lambda c: nn.ConvTranspose2d(c, c, 3, groups=c),
    ),
    "transposed, fixed groups": (
        transposed(choose(*C), choose(*D), 3, groups=2),
        lambda c, d: nn.ConvTranspose2d(c, d, 3, groups=2),
    ),
    "transposed, groups on their own": (
        transposed(8, 8, 3, groups=choose("g", 1, 2, 8)),
        lambda g: nn.ConvTranspose2d(8, 8, 3, groups=g),
    ),
    "groups of a norm": (
        lambda: MutableGroupNorm(choose("g", 1, 2), choose(*C)),
        lambda g, c: nn.GroupNorm(g, c),
    ),
    "groups of four, no weights": (
        lambda: MutableGroupNorm(choose(*C) // 2, choose(*C), affine=False),
        lambda c: nn.GroupNorm(c // 2, c, affine=False),
    ),
    "slopes": (lambda: MutablePReLU(choose(*C)), nn.PReLU),
}


def cut(layer, largest, path):
    """Give a layer its part of the tensors of the largest one, element by element."""
    with torch.no_grad():
        for name, tensor in layer.state_dict().items():
            source = largest.state_dict()[name]
            margins = [0, 0]
            if source.dim() == 4:
                margins += [
                    (a - b) // 2 for a, b in zip(source.shape[2:], tensor.shape[2:], strict=True)
                ]
            for index in itertools.product(*map(range, tensor.shape)):
                shifted = [i + m for i, m in itertools.zip_longest(index, margins[: len(index)])]
                tensor[index] = source[tuple(shifted)]
    return layer.eval()


def channels_of(layer):
    names = ("in_channels", "num_channels", "num_parameters")
    return next(getattr(layer, name) for name in names if hasattr(layer, name))


@pytest.mark.parametrize("name", CASES)
def test_paths_are_what_hands_cut_out_of_the_largest(name):
    make, plain = CASES[name]
    supernet = build_supernet(make)
    seen = set()
    for path in paths_of(supernet):
        expected = cut(
            plain(**path) if name != "slopes" else plain(path["c"]), supernet.layers[0], path
        )
        x = images(2, channels_of(expected), 5, 7)
        subnet = extract_subnet(supernet, path)
        assert type(subnet.layers[0]) is type(expected)
        weights, own = subnet.layers[0].state_dict(), expected.state_dict()
        assert list(weights) == list(own)
        assert all(torch.equal(weights[key], own[key]) for key in own)
        with torch.no_grad():
            output = supernet(x)
            assert_close(output, expected(x))
            assert_close(output, subnet(x))
        seen.add((*output.shape, *output.flatten().tolist()))
    assert len(seen) > 1


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}])
def test_a_layer_norm_is_the_one_of_the_path(options):
    supernet = build_supernet(lambda: MutableLayerNorm(choose(*C), **options))
    largest = supernet.layers[0].state_dict()
    for path in paths_of(supernet):
        layer = nn.LayerNorm(path["c"], **options)
        layer.load_state_dict({name: tensor[: path["c"]] for name, tensor in largest.items()})
        x = images(2, 3, path["c"])
        with torch.no_grad():
            assert_close(supernet(x), layer(x))
            assert_close(extract_subnet(supernet, path)(x), layer(x))


def test_a_layer_norm_of_several_sizes_follows_its_choice():
    sizes = computed(lambda c: (c, 2, 3), choose(*C))
    supernet = build_supernet(lambda: MutableLayerNorm(sizes))
    assert supernet.layers[0].weight.shape == (8, 2, 3)
    for path in paths_of(supernet):
        layer = nn.LayerNorm((path["c"], 2, 3))
        largest = supernet.layers[0].state_dict()
        layer.load_state_dict({name: tensor[: path["c"]] for name, tensor in largest.items()})
        x = images(2, path["c"], 2, 3)
        with torch.no_grad():
            assert_close(supernet(x), layer(x))


class Decoder(Chain):
    """All of them in one space, whose layers follow one width."""

    def __init__(self):
        width = choose("w", 4, 8)
        super().__init__(
            lambda: MutableConv2d(1, width, 3, 2, 1),
            lambda: MutableGroupNorm(2, width),
            lambda: MutablePReLU(width),
            lambda: MutableConvTranspose2d(
                width, width, choose("k", 2, 4), 2, choose("k", 2, 4) // 2 - 1
            ),
            lambda: MutablePReLU(1),
            lambda: nn.AdaptiveAvgPool2d(1),
            lambda: nn.Flatten(1),
            lambda: MutableLayerNorm(width),
            lambda: MutableLinear(width, 3),
        )


def independent_count(w, k):
    """Multiply-adds and parameters of a path, by hand."""
    macs = 4 * 4 * w * 9 + 4 * 4 * w * w * k * k + 3 * w
    params = (w * 9 + w) + 2 * w + w + (w * w * k * k + w) + 1 + 2 * w + (3 * w + 3)
    return macs, params


def test_costs_and_outputs_are_those_of_each_paths_network():
    torch.manual_seed(0)
    supernet = share_weights(Decoder()).eval()
    costs = build_costs(Decoder(), (1, 8, 8))
    x = images(2, 1, 8, 8)
    for path in paths_of(supernet):
        network = extract_subnet(supernet, path)
        macs, params = independent_count(**path)
        assert costs["flops"].price(path) == macs == count_macs(network, (1, 8, 8))
        assert costs["params"].price(path) == params
        assert sum(parameter.numel() for parameter in network.parameters()) == params
        with torch.no_grad():
            assert_close(supernet(x), network(x))
    assert channel_labels(supernet) == ("w",)


REFUSED = {
    "no multiple": (
        lambda: MutableGroupNorm(4, choose("c", 8, 6)),
        "num_channels 6 is not a multiple of num_groups 4, which is one of its combinations of "
        "choices. Choose among multiples, for example with channel_choice(..., multiple_of=...).",
    ),
    "affine": (
        lambda: MutableGroupNorm(2, 4, affine=choose("a", True, False)),
        "the argument 'affine' cannot be a choice. Allowed: num_groups, num_channels, eps.",
    ),
    "outputs that groups do not divide": (
        transposed(4, choose("d", 4, 6), 1, groups=4),
        "out_channels 6 is not a multiple of groups 4, which is one of its combinations of "
        "choices. Let groups follow the same choice, or choose among multiples.",
    ),
    "negative margin": (
        transposed(2, choose("d", 2, 3), 3, 2, 1, choose("o", 1, 0) - 1),
        "output_padding must not be negative, got -1.",
    ),
    "no slopes": (
        lambda: MutablePReLU(choose("c", 1, 0)),
        "num_parameters must be a whole number of at least 1, got 0.",
    ),
    "no sizes": (
        lambda: MutableLayerNorm(choose("c", 4, 0)),
        "normalized_shape must be a whole number of at least 1, got 0.",
    ),
    "more sizes": (
        lambda: MutableLayerNorm(computed(lambda c: (c,) * (c // 2), choose("c", 4, 2))),
        "normalized_shape must have as many sizes in all its choices.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_layer_can_have_is_refused(name):
    make, message = REFUSED[name]
    with pytest.raises(SpaceError) as caught:
        share_weights(Chain(make))
    assert str(caught.value) == f"layer 'layers.0': {message}"
