"""A trained network in a file: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch

from nni_spos.errors import CheckpointError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, load_network, save_network
from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.supernet import save_supernet

ARGUMENTS = {"stem_channels": 4, "stage_repeats": [1, 2], "stage_channels": [8, 16],
             "last_channels": 16}  # fmt: skip
PATH = {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"}


class MySpace(ShuffleNetV2Space):
    """A space that a user wrote."""


@pytest.fixture
def trained():
    space = SpaceArguments("shufflenet_small", ARGUMENTS, 3, 1, 8)
    network = extract_subnet(space.build(), PATH)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return TrainedNetwork(
        network.eval(), PATH, {"flops": 12, "params": 5}, {"epochs": 3, "warmup_steps": 0},
        {"image_size": 8, "mean": [0.5]}, space, {"top1": 90.5, "num_images": 20},
    )  # fmt: skip


@pytest.fixture
def file(tmp_path, trained):
    save_network(tmp_path / "a" / "network.pt", trained)
    return tmp_path / "a" / "network.pt"


def change(file, **values):
    content = torch.load(file, weights_only=True)
    torch.save({**content, **values}, file)


def test_everything_comes_back(file, trained):
    loaded = load_network(file)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(loaded.network(images), trained.network(images))
    assert not loaded.network.training
    for field in dataclasses.fields(TrainedNetwork):
        if field.name != "network":
            assert getattr(loaded, field.name) == getattr(trained, field.name), field.name
    names = [name for name, _ in loaded.network.named_parameters()]
    assert "first_conv.1.weight" in names, "BatchNorm is affine"


@pytest.mark.parametrize("quantizer", ["dorefa", "symmetric"])
def test_a_quantized_network_is_captured_as_it_is_loaded(tmp_path, quantizer):
    arguments = {
        "stage_repeats": [1], "stage_channels": [4], "channel_scales": None,
        "bit_pairs": [[4, 8]], "quantizer": quantizer,
    }  # fmt: skip
    space = SpaceArguments("resnet_small", arguments, 3, 1, 8)
    path = {"bits_1": "4w8a"}
    network = extract_subnet(space.build(), path)
    network.train()(torch.randn(4, 1, 8, 8))
    save_network(tmp_path / "a.pt", TrainedNetwork(network.eval(), path, {}, {}, {}, space))
    loaded, images = load_network(tmp_path / "a.pt").network, torch.randn(2, 1, 8, 8)
    program = torch.export.export(loaded, (images,))
    torch.testing.assert_close(program.module()(images), network(images))
    assert torch.equal(loaded(images), network(images))
    # Nothing is looked at any more, not even by the layers alone.
    loaded.blocks[0].main[0](-torch.ones(1, 4, 3, 3))


def test_a_file_does_not_decide_what_is_imported(file, tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.py"
    bomb.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    change(file, space={**torch.load(file, weights_only=True)["space"], "name": "bomb:Space"})
    with pytest.raises(CheckpointError, match=r"'bomb:Space', which is not imported.*'space'"):
        load_network(file)
    assert not (tmp_path / "ran").exists()
    own = MySpace(**{**ARGUMENTS, "stem_stride": 1}, num_classes=3, in_channels=1, input_size=8,
                  affine=True)  # fmt: skip
    assert load_network(file, own).path == PATH


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network_version": 2}, "has version 2; this is version 1"),
        ({"path": None}, "belongs to another space"),
        ({"path": {**PATH, "layer_3": "k9"}}, "belongs to another space .*'k9' is not a choice"),
        ({"path": {"layer_1": "k3"}}, "belongs to another space .*layer_2"),
        ({"weights": {}}, "belongs to another space .*Missing key"),
        ({"weights": 5}, "is not a trained network"),
        ({"costs": [1]}, "is not a trained network"),
        ({"space": {"name": "shufflenet_small"}}, "is not a trained network"),
        ({"preprocessing": {"image_size": torch.ones(2)}}, "is not made of plain values"),
        ({"made_for": {"data": {"seed": torch.ones(2)}}}, "is not made of plain values"),
        ({"cost": {"seconds": torch.ones(2)}}, "is not made of plain values"),
        ({"path": {**PATH, "layer_1": torch.ones(2)}}, "is not made of plain values"),
        ({"more": {1, 2}}, "is not made of plain values"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(file, values, message):
    change(file, **values)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_arguments_that_the_space_refuses(file):
    space = torch.load(file, weights_only=True)["space"]
    for arguments in ({"stage": 3}, {"stage_channels": "wide"}):
        change(file, space={**space, "arguments": arguments})
        with pytest.raises(CheckpointError, match="its space cannot be built"):
            load_network(file)


def test_other_files_are_refused(file, tmp_path):
    with pytest.raises(CheckpointError, match=r"no such checkpoint\. Train it first: nni-spos"):
        load_network(tmp_path / "missing.pt")
    save_supernet(tmp_path / "supernet.pt", ShuffleNetV2Space.small(), {})
    with pytest.raises(CheckpointError, match="is not a trained network"):
        load_network(tmp_path / "supernet.pt")
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="cannot be loaded safely"):
        load_network(file)


class Bomb:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_does_not_run(tmp_path):
    torch.save({"network_version": 1, "weights": Bomb(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be loaded safely"):
        load_network(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
