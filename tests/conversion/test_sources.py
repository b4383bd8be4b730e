"""Networks by name, and weights from files."""

import sys

import pytest
import torch
from torch import nn

from nni_spos.conversion.sources import build_model, load_weights, take_weights
from nni_spos.errors import CheckpointError, RecipeError, SpaceError

NET = """
from torch import nn
def make(num_classes=10, width=8):
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten(), nn.Linear(width, num_classes))
def nothing(): return 5
def broken(): raise KeyError("no such layer")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_net.py").write_text(NET)
    yield tmp_path
    sys.modules.pop("own_net", None)


def test_networks_of_torchvision():
    network = build_model({"name": "torchvision:squeezenet1_1"}, 37, None)
    assert network.classifier[1].out_channels == 37
    assert not network.training
    given = {"name": "torchvision:squeezenet1_1", "num_classes": 5, "dropout": 0.1}
    network = build_model(given, 37, None)
    assert (network.classifier[1].out_channels, network.classifier[0].p) == (5, 0.1)


def test_networks_of_ones_own(folder):
    assert build_model({"name": "own_net:make", "width": 4}, 3, folder)[0].out_channels == 4
    assert build_model({"name": "own_net:make"}, 3, folder)[2].out_features == 3


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "torchvision:resnet81"},
            "network of torchvision 'resnet81'; did you mean",
        ),
        ({"name": "resnet18"}, "must be torchvision:NAME, timm:NAME, or module:function"),
        ({"name": "torchvision:resnet18", "with": 3}, "unexpected keyword argument 'with'"),
        ({"name": "torchvision:resnet18", "weights": "IMAGENET"}, "unknown weights 'IMAGENET'"),
        ({"name": "own_net:mak"}, "module 'own_net' has no 'mak'; did you mean 'make'?"),
        ({"name": "own_net:make", "depth": 3}, "unknown argument 'depth'"),
        ({"name": "own_net:nothing"}, "gave a int, not a torch.nn.Module"),
        ({"name": "own_net:broken"}, "no such layer"),
        ({"name": "own_net:make", "weights": "DEFAULT"}, "weights: 'DEFAULT' is no file"),
        ({"name": "os:system"}, "not a function that returns a torch.nn.Module"),
    ],
)
def test_refuses(folder, model, message):
    with pytest.raises(RecipeError) as caught:
        build_model(model, 10, folder)
    assert message in str(caught.value)


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(SpaceError) as caught:
        build_model({"name": "torchvision:squeezenet1_1", "weights": "DEFAULT"}, 1000, None)
    text = str(caught.value)
    assert "could not be downloaded (no route to host)" in text
    assert "squeezenet1_1" in text
    assert "or give the file: weights: FILE" in text


def two_layers(classes=10):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, classes))


@pytest.mark.parametrize("holder", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_files_of_state_dicts(tmp_path, holder, prefix):
    given, network = two_layers(), two_layers()
    state = {f"{prefix}{name}": x for name, x in given.state_dict().items()}
    torch.save({holder: state, "epoch": 3} if holder else state, tmp_path / "mine.pt")
    load_weights(network, tmp_path / "mine.pt")
    assert torch.equal(network[0].weight, given[0].weight)


def test_a_last_layer_with_other_classes_begins_anew():
    given, network = two_layers(1000), two_layers(37)
    before = network[3].weight.clone()
    take_weights(network, given.state_dict(), "mine.pt")
    assert torch.equal(network[0].weight, given[0].weight)
    assert torch.equal(network[3].weight, before)


def test_weights_of_another_network():
    state = two_layers().state_dict()
    state["4.weight"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(16, 1, 3, 3)
    del state["1.bias"]
    with pytest.raises(CheckpointError) as caught:
        take_weights(two_layers(), state, "mine.pt")
    assert str(caught.value) == (
        "mine.pt: belongs to another network: '1.bias' is missing; '4.weight' is unknown; "
        "'0.weight' is (16, 1, 3, 3), not (8, 1, 3, 3) (1 missing, 1 unknown, 1 of another shape)."
    )


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_weights(two_layers(), tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="is no state dict"):
        load_weights(two_layers(), tmp_path / "list.pt")
