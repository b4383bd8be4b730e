"""The space of ProxylessNAS, against NNI's own."""

import pytest
import torch
from nni.nas.hub.pytorch import ProxylessNAS
from torch import nn

from nni_spos.spaces import ProxylessNASSpace, published

HUB = {f"proxylessnas-{target}": f"proxyless-{target}" for target in ("cpu", "gpu", "mobile")}
KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def layers(network):
    """Layers with weights in the order of their calls, which is that of their definition."""
    return [module for module in network.modules() if isinstance(module, KINDS)]


@pytest.mark.parametrize("name", HUB)
def test_networks_of_nnis_hub_load_unchanged(name):
    torch.manual_seed(0)
    hub = ProxylessNAS.load_searched_model(HUB[name]).eval()
    ours = published(name).build().eval()
    for norm in layers(hub):
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0.0, 0.1)
            nn.init.uniform_(norm.running_var, 0.005, 0.5)
            nn.init.normal_(norm.weight, 1.0, 0.2)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    assert len(layers(ours)) == len(layers(hub))
    for layer, other in zip(layers(ours), layers(hub), strict=True):
        assert repr(layer) == repr(other).replace("Mutable", "")
        layer.load_state_dict(other.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, got = hub(x), ours(x)
    assert expected.shape == (2, 1000)
    assert expected.std() > 0.01
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


KERNELS = {"k3e3": 3, "k3e6": 3, "k5e3": 5, "k5e6": 5, "k7e3": 7, "k7e6": 7}
EXPANSIONS = {"k3e3": 3, "k3e6": 6, "k5e3": 3, "k5e6": 6, "k7e3": 3, "k7e6": 6}


def test_the_blocks_of_a_unit():
    unit = ProxylessNASSpace.small().features[1]
    assert list(unit.names) == [*KERNELS, "skip"]
    for choice, kernel_size in KERNELS.items():
        expand, depth_wise, project = (m for m in unit[choice].main if isinstance(m, nn.Conv2d))
        hidden = 16 * EXPANSIONS[choice]
        assert (expand.in_channels, expand.out_channels) == (16, hidden)
        assert depth_wise.kernel_size == (kernel_size, kernel_size)
        assert depth_wise.groups == hidden
        assert (project.in_channels, project.out_channels) == (hidden, 16)
    x = torch.randn(2, 16, 4, 4)
    assert unit["skip"](x) is x


def test_skipping_all_that_can_be_skipped_leaves_a_unit_for_each_stage():
    space = ProxylessNASSpace.small()
    path = {unit.label: "skip" if "skip" in unit.names else "k3e3" for unit in space.features}
    assert [choice for choice in path.values() if choice != "skip"] == ["k3e3"] * 3
    assert len(layers(space.freeze(path).features)) == 3 * 6


def test_norms():
    # In a supernet without weights; those of a network with the authors' epsilon.
    for network, affine in (
        (ProxylessNASSpace.small(), False),
        (published("proxylessnas-gpu").build(input_size=32), True),
    ):
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(norm.affine, norm.eps) for norm in norms} == {(affine, 1e-3)}


@pytest.mark.parametrize(
    ("bad", "good", "message"),
    [
        ({"num_classes": 0}, {"num_classes": 1}, "num_classes must be at least 1, got 0"),
        ({"in_channels": 0}, {"in_channels": 1}, "in_channels must be at least 1, got 0"),
        ({"stem_channels": 0}, {"stem_channels": 1}, "stem_channels must be at least 1, got 0"),
        ({"stem_stride": 0}, {"stem_stride": 2}, "stem_stride must be at least 1, got 0"),
        ({"first_channels": 0}, {"first_channels": 5}, "first_channels must be at least 1, got 0"),
        ({"last_channels": -8}, {"last_channels": 8}, "last_channels must be at least 1, got -8"),
        ({"input_size": 7}, {"input_size": 8}, "input_size must be at least 8 pixels, got 7"),
        (
            {"stem_stride": 2, "input_size": 15},
            {"stem_stride": 2, "input_size": 16},
            "input_size must be at least 16 pixels, got 15",
        ),
        (
            {"stage_repeats": (2, 3)},
            {"stage_repeats": (2, 3, 1)},
            r"stage_repeats \[2, 3\], stage_channels \[16, 24, 40\] and stage_strides "
            r"\[2, 2, 2\] must have the same length",
        ),
        ({"stage_repeats": (2, 0, 2)}, {"stage_repeats": (1, 1, 1)}, "at least one unit"),
        (
            {"stage_repeats": (), "stage_channels": (), "stage_strides": ()},
            {"stage_repeats": (1,), "stage_channels": (7,), "stage_strides": (1,)},
            "at least one unit",
        ),
        (
            {"stage_channels": (16, 0, 40)},
            {"stage_channels": (16, 1, 40)},
            r"stage_channels must be at least 1, got \[16, 0, 40\]",
        ),
        (
            {"stage_strides": (2, 3, 2)},
            {"stage_strides": (2, 1, 2)},
            r"stage_strides must be 1 or 2, got \[2, 3, 2\]",
        ),
        ({"dropout": 1.5}, {"dropout": 1.0}, "dropout probability"),
    ],
)
def test_arguments(bad, good, message):
    with pytest.raises(ValueError, match=message):
        ProxylessNASSpace.small(**bad)
    space = ProxylessNASSpace.small(**good).eval()
    x = torch.randn(1, space.in_channels, space.input_size, space.input_size)
    with torch.no_grad():
        assert space(x).shape == (1, space.num_classes)
