"""Weights of NNI's hub as files of ours: the hub's own networks give the same logits."""

from __future__ import annotations

import re

import pytest
import torch
from nni.nas.hub.pytorch import ProxylessNAS, ShuffleNetSpace
from others_checkpoints import TINY_ARGUMENTS, authors_checkpoint, authors_logits
from small_spaces import set_path
from torch import nn

from nni_spos import load_network, open_supernet
from nni_spos.errors import CheckpointError
from nni_spos.importing import import_weights
from nni_spos.profilers import count_macs
from nni_spos.spaces import ProxylessNASSpace, published
from nni_spos.supernet import load_supernet

WIDTHS = (8, 8, 8, 16, 16, 16, 16, 16, 32)
OURS = {
    "stem_channels": 8,
    "first_channels": 8,
    "stage_channels": (8, 16, 16, 16, 16, 16),
    "last_channels": 32,
}
DEPTHS = (1, 2, 3, 4, 2)
CHOICES = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")


def draw(network):
    """Give a network weights and statistics that differ from element to element."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


def hub_path():
    """Return a path of the hub's space, and the same of ours."""
    theirs, ours = {}, {}
    drawn = 0
    for stage, depth in enumerate((*DEPTHS, 1), 2):
        if stage < 7:
            theirs[f"s{stage}_depth"] = depth
        for position in range(4 if stage < 7 else 1):
            choice = CHOICES[drawn % len(CHOICES)]
            drawn += 1
            theirs[f"s{stage}_i{position}"] = choice
            ours[f"layer_{len(ours) + 1}"] = choice if position < depth else "skip"
    return theirs, ours


def hub_network(path):
    return ProxylessNAS.frozen_factory(path)(num_labels=10, base_widths=WIDTHS).eval()


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_a_network_of_the_hub_is_read_with_the_path_that_its_shapes_say(tmp_path):
    theirs, ours = hub_path()
    network = draw(hub_network(theirs))
    torch.save(network.state_dict(), tmp_path / "x.pth")
    found = import_weights(tmp_path / "x.pth", "proxylessnas_mobile", tmp_path / "n.pt", OURS)
    assert found.path == ours
    assert found.title == "a network of NNI's ProxylessNAS"
    trained = load_network(tmp_path / "n.pt")
    assert trained.path == ours
    with torch.no_grad():
        torch.testing.assert_close(trained.network(images()), network(images()), rtol=0, atol=1e-5)
    assert trained.costs == {
        "flops": count_macs(network, (3, 224, 224)),
        "params": sum(parameter.numel() for parameter in network.parameters()),
    }
    assert trained.preprocessing["mean"] == [0.485, 0.456, 0.406]
    assert trained.preprocessing["channel_order"] == "rgb"
    assert trained.preprocessing["image_size"] == 224


@pytest.mark.slow
def test_a_supernet_of_the_hub_is_read(tmp_path):
    theirs, ours = hub_path()
    supernet = draw(ProxylessNAS(num_labels=10, base_widths=WIDTHS))
    weights = supernet.state_dict()
    torch.save(weights, tmp_path / "x.pth")
    found = import_weights(tmp_path / "x.pth", "proxylessnas_mobile", tmp_path / "s.pt", OURS)
    assert dict(found.space) == {"name": "proxylessnas_mobile", **OURS, "affine": True}
    assert not found.data
    assert load_supernet(found.file).preprocessing == {
        "known_in_part": True,
        "num_classes": 10,
        "channels": 3,
    }
    own = open_supernet(found.file, ProxylessNASSpace(10, affine=True, **OURS)).eval()
    set_path(own, ours)
    network = hub_network(theirs)
    chosen = {}
    for name, tensor in weights.items():
        match = re.fullmatch(r"blocks\.(\d)\.(?:blocks\.(\d)\.)?(k\de\d)\.(.*)", name)
        if match is None:
            chosen[name] = tensor
        elif theirs[f"s{int(match[1]) + 1}_i{match[2] or 0}"] == match[3]:
            chosen[".".join(filter(None, ["blocks", match[1], match[2], match[4]]))] = tensor
    network.load_state_dict({name: chosen[name] for name in network.state_dict()})
    with torch.no_grad():
        torch.testing.assert_close(own(images()), network(images()), rtol=0, atol=1e-5)


def as_network(content, blocks):
    """Return the weights of a path under the names of its network alone."""
    weights = {}
    for name, tensor in content["state_dict"].items():
        match = re.fullmatch(r"module\.features\.(\d)\.(\d)\.(.*)", name)
        if match is None:
            weights[name.removeprefix("module.")] = tensor
        elif blocks[int(match[1])] == int(match[2]):
            weights[f"features.{match[1]}.{match[3]}"] = tensor
    return weights


def test_a_network_of_the_authors_blocks_is_read(tmp_path):
    content, blocks = authors_checkpoint(), [0, 3, 2]
    torch.save(as_network(content, blocks), tmp_path / "x.pth")
    found = import_weights(
        tmp_path / "x.pth", "shufflenet_small", tmp_path / "n.pt", TINY_ARGUMENTS
    )
    choices = ("k3", "k5", "k7", "xcep")
    assert found.path == {f"layer_{i}": choices[x] for i, x in enumerate(blocks, 1)}
    assert dict(found.space) == {
        "name": "shufflenet_small",
        **TINY_ARGUMENTS,
        "affine": False,
    }
    x = 50 * images(16)
    with torch.no_grad():
        logits = load_network(tmp_path / "n.pt").network(x)
    expected = authors_logits(content, blocks, x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    with pytest.raises(CheckpointError, match=r"of the path k3 .* and not of shufflenet-spos"):
        import_weights(tmp_path / "x.pth", "shufflenet-spos", tmp_path / "other.pt")


@pytest.mark.slow
def test_the_hubs_network_of_the_paper_is_read_under_its_name(tmp_path):
    path = published("shufflenet-spos").path
    network = draw(ShuffleNetSpace.frozen_factory(path)().eval())
    torch.save(network.state_dict(), tmp_path / "spos.pth")
    found = import_weights(tmp_path / "spos.pth", "shufflenet-spos", tmp_path / "n.pt")
    assert found.path == path
    assert found.data == {"channel_order": "bgr", "normalisation": "none"}
    x = images(224)
    with torch.no_grad():
        expected = network(x)
        logits = load_network(tmp_path / "n.pt").network(x)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_a_block_that_the_space_does_not_have_is_named(tmp_path):
    weights = as_network(authors_checkpoint(), [0] * 3)
    weights["features.2.branch_main.3.weight"] = torch.ones(16, 1, 9, 9)
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        import_weights(tmp_path / "x.pth", "shufflenet_small", tmp_path / "n.pt", TINY_ARGUMENTS)
    assert str(caught.value) == (
        f"{tmp_path / 'x.pth'}: 'features.2.branch_main.3.weight' is that of a block k9; the space "
        "has k3, k5, k7, xcep."
    )


def test_a_network_of_other_depth_is_refused(tmp_path):
    weights = as_network(authors_checkpoint(), [0] * 3)
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"is not a network of .* of shufflenet_small: .*layer_4"
    ):
        import_weights(tmp_path / "x.pth", "shufflenet_small", tmp_path / "n.pt")


@pytest.mark.parametrize(
    "shape", [(8, 0, 1, 1), (0, 0, 0, 0), pytest.param((3,), marks=pytest.mark.slow)]
)
def test_weights_of_no_size_are_refused(tmp_path, shape):
    weights = {
        "stem.0.weight": torch.ones(8, 3, 3, 3),
        "classifier.weight": torch.ones(10, 32),
        "blocks.1.0.0.weight": torch.ones(shape),
        "blocks.1.0.3.weight": torch.ones(24, 1, 3, 3),
    }
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"^[^\n]*x.pth: (is not a network|'blocks.1.0.3.w)"):
        import_weights(tmp_path / "x.pth", "proxylessnas_mobile", tmp_path / "n.pt", OURS)
