"""Checkpoints: what comes back, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from nni_spos.errors import CheckpointError
from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.supernet.checkpoint import load_supernet, restore_supernet, save_supernet

SMALL = {"num_classes": 3, "input_size": 8, "stem_stride": 1, "stem_channels": 4,
         "stage_repeats": (1, 2), "stage_channels": (8, 16), "last_channels": 16}  # fmt: skip
PREPROCESSING = {"image_size": 8, "mean": [0.5]}


class Bomb:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.fixture
def file(tmp_path):
    save_supernet(tmp_path / "a" / "supernet.pt", ShuffleNetV2Space(**SMALL), PREPROCESSING)
    return tmp_path / "a" / "supernet.pt"


def test_weights_space_and_preprocessing_come_back(tmp_path):
    trained, other = ShuffleNetV2Space(**SMALL), ShuffleNetV2Space(**SMALL)
    save_supernet(tmp_path / "x.pt", trained, PREPROCESSING)
    checkpoint = load_supernet(tmp_path / "x.pt")
    assert checkpoint.preprocessing == PREPROCESSING
    restore_supernet(other, checkpoint)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(CheckpointError, match="Train the supernet first"):
        load_supernet(tmp_path / "none.pt")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="cannot be loaded safely") as caught:
        load_supernet(file)
    assert "\n" not in str(caught.value)


def test_code_in_a_file_is_not_run(tmp_path):
    trap = tmp_path / "trap"
    for name, save in (("torch.pt", torch.save), ("plain.pt", _pickle)):
        save(Bomb(trap), tmp_path / name)
        with pytest.raises(CheckpointError, match="cannot be loaded safely") as caught:
            load_supernet(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize(
    "change",
    [{"supernet_version": 2}, {"weights": [1]}, {"space": {}}, {"preprocessing": None}],
)
def test_other_contents_are_refused(file, change):
    content = torch.load(file, weights_only=True)
    torch.save(content, file)
    assert load_supernet(file).preprocessing == PREPROCESSING
    torch.save({**content, **change}, file)
    with pytest.raises(CheckpointError, match=r"version 2|is not a supernet checkpoint"):
        load_supernet(file)


ODD = [torch.ones(2), {"a": [torch.ones(1)]}, {"a": {1, 2}}, {"a": 2j}, {(1, 2): b"x"}]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("part", ["preprocessing", "made_for", "space"])
def test_parts_that_are_not_made_of_plain_values(file, part, odd):
    content = torch.load(file, weights_only=True)
    torch.save({**content, part: odd if isinstance(odd, dict) else {"a": odd}}, file)
    with pytest.raises(CheckpointError, match="is not a supernet checkpoint"):
        load_supernet(file)
    if part != "space":
        torch.save({**content, part: {"a": [1, (2.5, None), {"b": "x"}]}}, file)
        assert load_supernet(file)


def test_something_else_is_refused(file):
    torch.save(torch.zeros(3), file)
    with pytest.raises(CheckpointError, match="is not a supernet checkpoint"):
        load_supernet(file)


def test_another_space_and_other_layers_are_refused(file):
    checkpoint = load_supernet(file)
    deeper = ShuffleNetV2Space(**{**SMALL, "stage_repeats": (1, 3)})
    with pytest.raises(CheckpointError, match=r"another search space\. They differ at 'layer_4'"):
        restore_supernet(deeper, checkpoint)
    wider = ShuffleNetV2Space(**{**SMALL, "last_channels": 32})
    before = {name: tensor.clone() for name, tensor in wider.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"'conv_last\.0\.weight' has shape"):
        restore_supernet(wider, checkpoint)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wider.state_dict().items())


def _pickle(content: object, file: Path) -> None:
    file.write_bytes(pickle.dumps(content))
