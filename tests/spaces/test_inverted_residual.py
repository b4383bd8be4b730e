"""Inverted residuals, against the same layers written out."""

import pytest
import torch
from torch import nn

from nni_spos.spaces import FBNetSpace, NASBenchMacroSpace, ProxylessNASSpace
from nni_spos.spaces.inverted_residual import InvertedResidual, Style

PLAIN = Style(affine=True)


def layers(block):
    return [type(layer).__name__ for layer in block.main]


def convs(block):
    return [layer for layer in block.main if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("expansion", [3, 6])
def test_layers(kernel_size, expansion, stride):
    block = InvertedResidual(4, 8, kernel_size, expansion, stride, style=PLAIN)
    norm, activation = "BatchNorm2d", "ReLU"
    assert layers(block) == [*["Conv2d", norm, activation] * 2, "Conv2d", norm]
    hidden = 4 * expansion
    assert [
        (c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.groups)
        for c in convs(block)
    ] == [(4, hidden, 1, 1, 1), (hidden, hidden, kernel_size, stride, hidden), (hidden, 8, 1, 1, 1)]
    assert not any(conv.bias is not None for conv in convs(block))
    assert block(torch.zeros(2, 4, 8, 8)).shape == (2, 8, 8 // stride, 8 // stride)


def test_expansion_1_has_no_expansion_convolution():
    block = InvertedResidual(4, 8, 3, 1, style=PLAIN)
    assert [(c.in_channels, c.out_channels, c.groups) for c in convs(block)] == [
        (4, 4, 4),
        (4, 8, 1),
    ]


@pytest.mark.parametrize(
    ("outputs", "stride", "adds"), [(4, 1, True), (8, 1, False), (4, 2, False), (8, 2, False)]
)
def test_the_input_is_added_where_shapes_agree(outputs, stride, adds):
    torch.manual_seed(0)
    block = InvertedResidual(4, outputs, 3, 3, stride, style=PLAIN).eval()
    x = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected = block.main(x)
        torch.testing.assert_close(block(x), x + expected if adds else expected)


@pytest.mark.parametrize("expansion", [1, 3])
def test_groups_are_mixed_before_the_depth_wise_convolution(expansion):
    block = InvertedResidual(8, 8, 3, expansion, groups=2, style=PLAIN)
    names = layers(block)
    assert names.count("ChannelShuffle") == 1
    depth_wise = convs(block)[-2]
    assert block.main[names.index("ChannelShuffle") + 1] is depth_wise
    assert [conv.groups for conv in convs(block)] == [2, depth_wise.in_channels, 2][
        -len(convs(block)) :
    ]


def test_each_group_of_outputs_sees_both_groups_of_inputs():
    # Of 8 channels the first group of the projection gets 0, 4, 1, 5: two of either half.
    block = InvertedResidual(8, 8, 3, 1, groups=2, style=PLAIN).eval()
    x = torch.zeros(1, 8, 5, 5)
    with torch.no_grad():
        still = block.main(x)
        for channel in range(8):
            changed = x.clone()
            changed[:, channel] = torch.randn(5, 5)
            outputs = (block.main(changed) != still).flatten(2).any(2)[0]
            expected = [channel in (0, 4, 1, 5)] * 4 + [channel in (2, 6, 3, 7)] * 4
            assert not (outputs & ~torch.tensor(expected)).any()
            assert outputs.any()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
def test_style(activation):
    block = InvertedResidual(4, 4, 3, 3, style=Style(False, 1e-3, activation))
    norms = [layer for layer in block.main if isinstance(layer, nn.BatchNorm2d)]
    assert [(norm.eps, norm.affine) for norm in norms] == [(1e-3, False)] * 3
    assert [type(layer) for layer in block.main if isinstance(layer, nn.ReLU | nn.ReLU6)] == [
        activation
    ] * 2


def test_zero_init_residual():
    style = Style(affine=True, zero_init_residual=True)
    x = torch.randn(2, 4, 5, 5)
    for block, is_identity in (
        (InvertedResidual(4, 4, 3, 3, style=style), True),
        (InvertedResidual(4, 4, 3, 3, style=Style(affine=True)), False),
    ):
        assert torch.equal(block(x), x) is is_identity
    for changes_shape in (
        InvertedResidual(4, 8, 3, 3, style=style),
        InvertedResidual(4, 4, 3, 3, stride=2, style=style),
    ):
        assert changes_shape(x).abs().sum() > 0


@pytest.mark.parametrize("space", [NASBenchMacroSpace, ProxylessNASSpace.small, FBNetSpace.small])
def test_spaces_whose_residual_blocks_begin_as_identities(space):
    with pytest.raises(ValueError, match=r"zero_init_residual .* needs affine: true"):
        space(zero_init_residual=True)
    network = space(affine=True, zero_init_residual=True)
    begins = {
        module.adds_input: module.main[-1].weight.unique().tolist()
        for module in network.modules()
        if isinstance(module, InvertedResidual)
    }
    assert begins == {True: [0.0], False: [1.0]}
