"""The space of FBNet: its nine kinds of blocks, and what its published figures say of them."""

import pytest
import torch
from torch import nn

from nni_spos.profilers import build_costs
from nni_spos.spaces import FBNetSpace, published

# Choice to kernel size, expansion and groups of the projection.
KINDS = {
    "k3e1": (3, 1, 1),
    "k3e1g2": (3, 1, 2),
    "k3e3": (3, 3, 1),
    "k3e6": (3, 6, 1),
    "k5e1": (5, 1, 1),
    "k5e1g2": (5, 1, 2),
    "k5e3": (5, 3, 1),
    "k5e6": (5, 6, 1),
}


def convs(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def test_the_blocks_of_a_unit():
    unit = FBNetSpace.small().features[2]
    assert list(unit.names) == [*KINDS, "skip"]
    for choice, (kernel_size, expansion, groups) in KINDS.items():
        *expand, depth_wise, project = convs(unit[choice])
        assert len(expand) == (expansion > 1)
        assert depth_wise.kernel_size == (kernel_size, kernel_size)
        assert depth_wise.in_channels == depth_wise.groups == 32 * expansion
        assert project.groups == groups
        shuffles = [m for m in unit[choice].modules() if isinstance(m, nn.ChannelShuffle)]
        assert len(shuffles) == (groups > 1)
    x = torch.randn(2, 32, 4, 4)
    assert unit["skip"](x) is x


@pytest.mark.slow
def test_costs_of_the_blocks_of_a_unit():
    # The second unit of the stage of 64 channels, by hand: 14 x 14 pixels.
    costs = build_costs(FBNetSpace(affine=True), (3, 224, 224))
    path = dict(published("fbnet-b").path)
    flops, params = {}, {}
    for choice in (*KINDS, "skip"):
        path["layer_11"] = choice
        flops[choice] = costs["flops"].price(path)
        params[choice] = costs["params"].price(path)
    for choice, (kernel_size, expansion, groups) in KINDS.items():
        hidden = 64 * expansion
        expand = 64 * hidden if expansion > 1 else 0
        weights = expand + hidden * kernel_size**2 + hidden * 64 // groups
        assert flops[choice] - flops["skip"] == 14 * 14 * weights
        norms = 2 * ((hidden if expand else 0) + hidden + 64)
        assert params[choice] - params["skip"] == weights + norms


def test_units_and_widths():
    space = FBNetSpace()
    widths = [16, *[24] * 4, *[32] * 4, *[64] * 4, *[112] * 4, *[184] * 4, 352]
    strides = [1, 2, 1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    assert len(space.features) == 22
    for unit, width, stride in zip(space.features, widths, strides, strict=True):
        *_, depth_wise, project = convs(unit["k3e6"])
        assert (project.out_channels, depth_wise.stride) == (width, (stride, stride))
    assert space.conv_last[0].out_channels == 1984
    # All but the first unit of a stage, unless it changes nothing.
    can_skip = [i for i, unit in enumerate(space.features, 1) if "skip" in unit.names]
    assert can_skip == [1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19, 20, 21]


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"num_classes": 0}, {"num_classes": 1}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, {"in_channels": 1}, "in_channels must be at least 1, got 0"),
        ({"stem_channels": 0}, {"stem_channels": 2}, "stem_channels must be at least 1, got 0"),
        ({"last_channels": 0}, {"last_channels": 3}, "last_channels must be at least 1, got 0"),
        ({"stem_channels": 7}, {"stem_channels": 6}, "must be even, for two groups, got 7"),
        (
            {"stage_channels": (16, 25, 64)},
            {"stage_channels": (16, 26, 64)},
            "must be even, for two groups, got 25",
        ),
        ({"input_size": 7}, {"input_size": 8}, "input_size must be at least 8 pixels, got 7"),
        (
            {"stage_strides": (1, 2)},
            {"stage_strides": (2, 2, 1)},
            "must have the same length",
        ),
    ],
)
def test_arguments(bad, good, message):
    with pytest.raises(ValueError, match=message):
        FBNetSpace.small(**bad)
    space = FBNetSpace.small(**good).eval()
    x = torch.randn(1, space.in_channels, space.input_size, space.input_size)
    with torch.no_grad():
        assert space(x).shape == (1, space.num_classes)
