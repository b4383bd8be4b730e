"""A saved supernet, opened with a fresh space and nothing else."""

from __future__ import annotations

import pytest
import torch
from nni.nas.oneshot.pytorch.strategy import is_supernet
from small_spaces import set_path
from torch import nn

from nni_spos import ShuffleNetV2Space, convert, open_supernet
from nni_spos.errors import CheckpointError
from nni_spos.path import PathSpace
from nni_spos.supernet import SinglePathOneShot, save_supernet

SMALL = {"num_classes": 3, "input_size": 8, "stem_stride": 1, "stem_channels": 4,
         "stage_repeats": (1, 2), "stage_channels": (8, 16), "last_channels": 16}  # fmt: skip
SCALED = {**SMALL, "channel_scales": [0.5, 1.0, 1.5]}


def make_converted():
    torch.manual_seed(torch.seed() % 2**31)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 4, 1), nn.Flatten())
    return convert(nn.Sequential(*layers).eval(), torch.randn(1, 3, 8, 8))


MAKERS = {
    "units": lambda: ShuffleNetV2Space(**SMALL),
    "units and channels": lambda: ShuffleNetV2Space(**SCALED),
    "converted": make_converted,
}


@pytest.mark.parametrize(
    ("name", "is_mutated"), [*((name, False) for name in MAKERS), ("units", True)]
)
def test_a_fresh_space_computes_what_the_saved_supernet_did(tmp_path, name, is_mutated):
    make = MAKERS[name]
    saved = SinglePathOneShot().mutate_model(make()).eval()
    save_supernet(tmp_path / "supernet.pt", saved, {})
    fresh = make()
    if is_mutated:
        fresh = SinglePathOneShot().mutate_model(fresh)
    opened = open_supernet(tmp_path / "supernet.pt", fresh).eval()
    assert opened is fresh
    assert is_supernet(opened)
    x = torch.randn(2, 3, 8, 8)
    outputs = set()
    for path in PathSpace.from_model_space(saved).covering():
        for supernet in (saved, opened):
            set_path(supernet, path)
        with torch.no_grad():
            assert torch.equal(opened(x), saved(x))
            outputs.add(float(saved(x).sum()))
    assert len(outputs) > 1


def test_what_belongs_to_another_space_is_refused_with_its_name(tmp_path):
    file = tmp_path / "supernet.pt"
    save_supernet(file, SinglePathOneShot().mutate_model(ShuffleNetV2Space(**SMALL)), {})
    with pytest.raises(CheckpointError, match=r"supernet.pt: the checkpoint belongs to another se"):
        open_supernet(file, ShuffleNetV2Space(**SCALED))
    with pytest.raises(CheckpointError, match=r"supernet.pt: .*'classifier.0.weight' has shape"):
        open_supernet(file, ShuffleNetV2Space(**{**SMALL, "num_classes": 4}))
    with pytest.raises(CheckpointError, match=r"none.pt: no such checkpoint"):
        open_supernet(tmp_path / "none.pt", ShuffleNetV2Space(**SMALL))
