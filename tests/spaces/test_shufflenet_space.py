import pytest
import torch
from nni.nas.hub.pytorch import ShuffleNetSpace
from torch import nn

from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.spaces.shufflenet import SMALL, ShuffleUnit, _split_channels

CHOICES = ["k3", "k5", "k7", "xcep"]
PUBLISHED = (2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3)
PATH = {f"layer_{i}": CHOICES[code] for i, code in enumerate(PUBLISHED, 1)}
SMALL_PATH = {f"layer_{i}": "k3" for i in range(1, 9)}


def batch_norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def test_networks_of_nnis_hub_load_unchanged():
    torch.manual_seed(0)
    hub = ShuffleNetSpace.load_searched_model("spos").eval()
    for norm in batch_norms(hub):
        nn.init.normal_(norm.running_mean, 0.0, 0.1)
        nn.init.uniform_(norm.running_var, 0.005, 0.5)
        nn.init.normal_(norm.weight, 1.0, 0.2)
        nn.init.normal_(norm.bias, 0.0, 0.2)
    ours = ShuffleNetV2Space.frozen_factory(PATH)().eval()
    ours.load_state_dict(hub.state_dict(), strict=True)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected, got = hub(x), ours(x)
    assert expected.shape == (2, 1000)
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [ShuffleNetV2Space, ShuffleNetV2Space.small])
def test_supernet_has_no_affine_parameters(build):
    norms = batch_norms(build())
    assert norms
    assert all(norm.weight is None and norm.bias is None for norm in norms)


def test_subnet_has_affine_parameters():
    norms = batch_norms(ShuffleNetV2Space.frozen_factory(PATH)())
    # Stem and last convolution, and each unit by its kind and stride.
    strided = [CHOICES[PUBLISHED[i]] for i in (0, 4, 8, 16)]
    main = sum(6 if code == 3 else 3 for code in PUBLISHED)
    assert len(norms) == 2 + main + 2 * len(strided)
    assert all(norm.weight is not None and norm.bias is not None for norm in norms)


@pytest.mark.parametrize("affine", [False, True])
def test_affine_can_be_given(affine):
    supernet = ShuffleNetV2Space.small(affine=affine)
    subnet = supernet.freeze(SMALL_PATH)
    for network in (supernet, subnet):
        assert {norm.affine for norm in batch_norms(network)} == {affine}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("mid_channels", [1, 16, 25])
@pytest.mark.parametrize(("stride", "in_channels"), [(1, 32), (2, 16), (2, 15)])
def test_unit_shapes(choice, mid_channels, stride, in_channels):
    unit = ShuffleUnit(in_channels, 32, mid_channels, choice, stride, affine=False)
    x = torch.randn(2, in_channels, 8, 8)
    assert unit(x).shape == (2, 32, 8 // stride, 8 // stride)


def test_stride_1_passes_even_channels_on():
    unit = ShuffleUnit(8, 8, 4, "k5", 1, affine=False).eval()
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        assert torch.equal(unit(x)[:, :4], x[:, [0, 2, 4, 6]])
        changed = x.clone()
        changed[:, 0::2] += 1
        assert torch.equal(unit(changed)[:, 4:], unit(x)[:, 4:])


@pytest.mark.parametrize("size", [1, 7, 8])
@pytest.mark.parametrize("channels", [4, 6, 64])
def test_channels_are_split_alike_in_both_layouts(channels, size):
    x = torch.randn(2, channels, size, size)
    weights = torch.randn(2, channels // 2, size, size), torch.randn(2, channels // 2, size, size)
    for layout in (torch.contiguous_format, torch.channels_last):
        same = x.clone(memory_format=layout).requires_grad_()
        halves = _split_channels(same)
        sum((half * weight).sum() for half, weight in zip(halves, weights, strict=True)).backward()
        for i, (half, weight) in enumerate(zip(halves, weights, strict=True)):
            assert torch.equal(half, x[:, i::2])
            assert torch.equal(same.grad[:, i::2], weight)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_unit_is_the_same_in_both_layouts(choice):
    unit = ShuffleUnit(32, 32, 16, choice, 1, affine=False).double()
    x = torch.randn(2, 32, 8, 8, dtype=torch.double)
    expected = torch.cat((x[:, 0::2], unit.branch_main(x[:, 1::2])), 1)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = unit(x.contiguous(memory_format=layout))
        assert got.is_contiguous(memory_format=layout)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_keep_the_layout(layout):
    # Otherwise each layer of the backward pass would convert them.
    x = torch.randn(2, 32, 8, 8).to(memory_format=layout).requires_grad_()
    unit = ShuffleUnit(32, 32, 16, "k3", 1, affine=False).to(memory_format=layout)
    unit(x).mul(2).sum().backward()
    assert x.grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.slow
def test_a_subnet_can_be_exported(layout):
    subnet = ShuffleNetV2Space.frozen_factory(SMALL_PATH)(**SMALL).eval()
    x = torch.randn(2, 3, 32, 32).to(memory_format=layout)
    with torch.no_grad():
        expected = subnet(x)
        torch.testing.assert_close(torch.export.export(subnet, (x,)).module()(x), expected)
        torch.testing.assert_close(torch.jit.trace(subnet, x)(x), expected)


def test_kernels_of_the_choices():
    kernels = {
        choice: [
            module.kernel_size[0]
            for module in ShuffleUnit(8, 8, 4, choice, 1, affine=False).modules()
            if isinstance(module, nn.Conv2d)
        ]
        for choice in CHOICES
    }
    assert kernels == {
        "k3": [1, 3, 1],
        "k5": [1, 5, 1],
        "k7": [1, 7, 1],
        "xcep": [3, 1, 3, 1, 3, 1],
    }


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"num_classes": 0}, {"num_classes": 1}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, {"in_channels": 1}, "in_channels must be at least 1, got 0"),
        ({"stem_stride": 0}, {"stem_stride": 1}, "stem_stride must be at least 1, got 0"),
        ({"last_channels": -8}, {"last_channels": 8}, "last_channels must be at least 1, got -8"),
        ({"stem_channels": 0}, {"stem_channels": 15}, "stem_channels must be at least 1, got 0"),
        ({"input_size": 7}, {"input_size": 8}, "input_size must be at least 8 pixels, got 7"),
        (
            {"stem_stride": 2, "input_size": 15},
            {"stem_stride": 2, "input_size": 16},
            "input_size must be at least 16 pixels, got 15",
        ),
        (
            {"stage_repeats": (2, 4)},
            {"stage_repeats": (2, 4, 1)},
            r"stage_repeats \[2, 4\] and stage_channels \[32, 64, 128\] must have the same length",
        ),
        ({"stage_repeats": (2, 0, 2)}, {"stage_repeats": (1, 1, 1)}, "at least one unit"),
        (
            {"stage_repeats": (), "stage_channels": ()},
            {"stage_repeats": (1,), "stage_channels": (32,)},
            "at least one unit",
        ),
        (
            {"stage_channels": (31, 64, 128)},
            {"stage_channels": (30, 64, 128)},
            r"must be even and grow from stem_channels 16, got \[31, 64, 128\]",
        ),
        (
            {"stage_channels": (32, 32, 128)},
            {"stage_channels": (32, 34, 128)},
            r"must be even and grow .* got \[32, 32, 128\]",
        ),
        ({"stem_channels": 32}, {"stem_channels": 31}, "grow from stem_channels 32"),
        ({"dropout": 1.5}, {"dropout": 1.0}, "dropout probability"),
    ],
)
def test_arguments(bad, good, message):
    with pytest.raises(ValueError, match=message):
        ShuffleNetV2Space.small(**bad)
    space = ShuffleNetV2Space.small(**good).eval()
    x = torch.randn(1, space.in_channels, space.input_size, space.input_size)
    with torch.no_grad():
        assert space(x).shape == (1, space.num_classes)
