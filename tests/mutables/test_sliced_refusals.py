"""Layers that no path can have, refused in one line, and their accepted neighbours."""

from __future__ import annotations

import nni
import pytest
from small_spaces import (
    Chain,
    assert_close,
    build_supernet,
    choose,
    images,
    paths_of,
    set_path,
)
from torch import nn

from nni_spos.errors import SpaceError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import (
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    QuantConv2d,
    bits_choice,
    share_weights,
    sliced,
)
from nni_spos.supernet import SinglePathOneShot

REFUSED = {
    "a bias as a choice": (
        lambda: MutableConv2d(1, 2, 1, bias=choose("b", True, False)),
        "the argument 'bias' cannot be a choice. Allowed: in_channels, out_channels, kernel_size, "
        "stride, padding, dilation, groups.",
    ),
    "affine as a choice": (
        lambda: MutableBatchNorm2d(2, affine=choose("a", True, False)),
        "the argument 'affine' cannot be a choice. Allowed: num_features, eps, momentum.",
    ),
    "channels that groups do not divide": (
        lambda: MutableConv2d(choose("c", 4, 6), 4, 1, groups=2 * choose("g", 1, 2)),
        "in_channels 6 is not a multiple of groups 4, which is one of its combinations of choices. "
        "Let groups follow the same choice, or choose among multiples.",
    ),
    "outputs that groups do not divide": (
        lambda: MutableConv2d(4, choose("d", 4, 8, 10), 1, groups=4),
        "out_channels 10 is not a multiple of groups 4, which is one of its combinations of "
        "choices. Let groups follow the same choice, or choose among multiples.",
    ),
    "no outputs": (
        lambda: MutableConv2d(2, choose("d", 4, 0), 1),
        "out_channels must be a whole number of at least 1, got 0.",
    ),
    "no features": (
        lambda: MutableLinear(choose("c", 8, 4) - 4, 2),
        "in_features must be a whole number of at least 1, got 0.",
    ),
    "features that are not whole": (
        lambda: MutableBatchNorm2d(choose("c", 8, 4.5)),
        "num_features must be a whole number of at least 1, got 4.5.",
    ),
    "no kernel": (
        lambda: MutableConv2d(2, 2, choose("k", 3, 0)),
        "kernel_size must be a whole number of at least 1, got 0.",
    ),
    "no stride": (
        lambda: MutableConv2d(2, 2, 1, choose("s", 1, 0)),
        "stride must be a whole number of at least 1, got 0.",
    ),
    "negative padding": (
        lambda: MutableConv2d(2, choose("d", 2, 3), 3, padding=choose("k", 1, 0) - 1),
        "padding must not be negative, got -1.",
    ),
    "padding in words": (
        lambda: MutableConv2d(2, 2, 3, padding=choose("p", 1, "same")),
        "padding can only be a choice between numbers, got 'same'.",
    ),
    "the same size with a stride": (
        lambda: MutableConv2d(2, 2, 3, choose("s", 1, 2), padding="same"),
        "padding='same' is not supported for strided convolutions.",
    ),
    "channels that groups do not divide, quantized": (
        lambda: QuantConv2d(4, choose("d", 4, 6), 1, groups=4, activation_bits=4),
        "out_channels 6 is not a multiple of groups 4, which is one of its combinations of "
        "choices. Let groups follow the same choice, or choose among multiples.",
    ),
    "a range": (
        lambda: MutableLinear(nni.uniform("u", 2, 4).int(), 2),
        "in_features: 'u' is a Numerical, not a choice.",
    ),
}
ACCEPTED = (
    lambda: MutableConv2d(1, choose("d", 2, 4), 1, bias=False),
    lambda: MutableConv2d(choose("c", 4, 8), 4, 1, groups=2 * choose("g", 1, 2)),
    lambda: MutableConv2d(4, choose("d", 4, 8), 1, groups=4),
    lambda: MutableConv2d(2, 2, choose("k", 3, 1), padding=choose("p", 0, 1)),
    lambda: MutableConv2d(2, 2, 3, choose("s", 1, 2), padding=1),
    lambda: MutableConv2d(2, choose("d", 2, 4), 3, padding="same"),
    lambda: MutableLinear(choose("c", 8, 5) - 4, 2),
)


@pytest.mark.parametrize("mutate", [share_weights, SinglePathOneShot().mutate_model])
@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_no_path_can_have_are_refused_by_name(name, mutate):
    make, words = REFUSED[name]
    space = Chain(nn.ReLU, make)
    with pytest.raises(SpaceError) as caught:
        mutate(space)
    assert str(caught.value) == f"layer 'layers.1': {words}"


@pytest.mark.parametrize("make", ACCEPTED)
def test_their_neighbours_are_accepted(make):
    supernet = build_supernet(nn.ReLU, make)
    for path in paths_of(supernet):
        layer = extract_subnet(supernet, path).layers[1]
        channels = getattr(layer, "in_channels", getattr(layer, "in_features", None))
        x = images(1, channels, 6, 6) if isinstance(layer, nn.Conv2d) else images(1, channels)
        assert_close(supernet(x), layer(x.relu()))


def test_a_layer_may_depend_on_so_many_combinations_and_no_more(monkeypatch):
    def make():
        bits = bits_choice("b", [(2, 2), (4, 4)])
        channels = choose("c", 2, 4), choose("d", 2, 4, 6)
        return QuantConv2d(*channels, 1, weight_bits=bits.weight, activation_bits=bits.activation)

    monkeypatch.setattr(sliced, "MAX_COMBINATIONS", 12)
    share_weights(Chain(make))
    monkeypatch.setattr(sliced, "MAX_COMBINATIONS", 11)
    with pytest.raises(SpaceError) as caught:
        share_weights(Chain(make))
    assert str(caught.value) == (
        "layer 'layers.0': its arguments depend on c, d, b, in 12 combinations; at most 11 are "
        "allowed."
    )


def test_a_supernet_runs_once_a_path_is_set():
    supernet = SinglePathOneShot().mutate_model(Chain(lambda: MutableConv2d(1, choose("d", 2), 1)))
    with pytest.raises(RuntimeError, match="a path must be set before a supernet runs"):
        supernet(images(1, 1, 2, 2))
    set_path(supernet, {"d": 2})
    assert supernet(images(1, 1, 2, 2)).shape == (1, 2, 2, 2)
