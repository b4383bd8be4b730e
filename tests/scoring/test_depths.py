"""Paths of several depths, scored together and one by one; and a whole run of such a space."""

from __future__ import annotations

import textwrap

import pytest
import torch
import yaml
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from torch import nn

import nni_spos
from nni_spos.data import open_data
from nni_spos.mutables import MutableBatchNorm2d, MutableConv2d, channel_choice
from nni_spos.path import PathSpace
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.scoring.parts import find_parts
from nni_spos.supernet import SinglePathOneShot

SETTINGS = EvaluationSettings(recalibration_images=64, batch_size=64)


class Deep(ModelSpace):
    """Blocks of a width whose number is a choice, then units whose number is one."""

    def __init__(self, num_classes: int = 10):
        super().__init__()
        width = channel_choice("width", 8, [0.5, 1.0])
        self.stem = nn.Sequential(MutableConv2d(1, width, 3, 2, 1), MutableBatchNorm2d(width))
        self.stage = Repeat(lambda i: self.block(width), (0, 2), label="depth")
        self.middle = MutableConv2d(width, 8, 1)
        self.units = Repeat(self.unit, (1, 2), label="units")
        self.head = nn.Linear(8, num_classes)

    @staticmethod
    def block(width):
        conv = MutableConv2d(width, width, 3, padding=1, bias=False)
        return nn.Sequential(conv, MutableBatchNorm2d(width), nn.ReLU())

    @staticmethod
    def unit(index):
        choices = {"k1": nn.Conv2d(8, 8, 1), "k3": nn.Conv2d(8, 8, 3, padding=1)}
        return LayerChoice(choices, label=f"unit_{index}")

    def forward(self, x):
        x = self.units(self.middle(self.stage(self.stem(x)).relu()))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", augmentation="none", num_validation=100))


def test_scores_of_all_together_are_those_of_each_alone(data, recwarn):
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(Deep())
    space = PathSpace.from_model_space(supernet)
    paths = space.decode(space.enumerate()[::3])
    assert [part.name for part in find_parts(supernet)] == [
        "stem",
        "stage",
        "middle",
        "units",
        "head",
    ]
    together = evaluate_paths(supernet, paths, data, SETTINGS)
    alone = [evaluate_path(supernet, path, data, SETTINGS) for path in paths]
    for one, other in zip(together, alone, strict=True):
        assert one.figures == pytest.approx(other.figures, abs=1e-5)
    assert len({x.figures["loss"] for x in alone}) > 8
    assert not recwarn.list


MODULE = """
from nni.nas.nn.pytorch import ModelSpace, Repeat
from torch import nn
from nni_spos.mutables import (
    MutableConv2d, MutableConvTranspose2d, MutableGroupNorm, MutableLayerNorm, MutableLinear,
    MutablePReLU, channel_choice,
)


class Space(ModelSpace):
    def __init__(self, num_classes=10):
        super().__init__()
        self.width = width = channel_choice("width", 8, [0.5, 1.0])
        self.stem = nn.Sequential(MutableConv2d(1, width, 3, 2, 1), MutableGroupNorm(2, width))
        self.stage = Repeat(self.block, (0, 2), label="depth")
        self.up = MutableConvTranspose2d(width, width, 2, 2)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(1), MutableLayerNorm(width),
            MutableLinear(width, num_classes),
        )

    def block(self, index):
        width = self.width
        return nn.Sequential(MutableConv2d(width, width, 3, padding=1), MutablePReLU(width))

    def forward(self, x):
        return self.head(self.up(self.stage(self.stem(x))))
"""


@pytest.mark.slow
def test_a_space_of_all_of_them_is_trained_searched_and_retrained(tmp_path):
    (tmp_path / "deep_space.py").write_text(textwrap.dedent(MODULE))
    training = {"epochs": 1, "batch_size": 50}
    recipe = {
        "output": "runs",
        "space": {"name": "deep_space:Space"},
        "data": {"name": "digits", "num_train": 100, "num_validation": 60},
        "supernet": training,
        "evaluation": {"recalibration_images": 50},
        "search": {"population_size": 4, "num_generations": 1, "constraints": ["flops <= 50k"]},
        "retrain": {**training, "initial_weights": "supernet"},
    }
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    loaded = nni_spos.load_recipe(tmp_path / "recipe.yml")
    nni_spos.train_supernet(loaded)
    found = nni_spos.run_search(loaded)
    path = found.candidates[0].path
    trained = nni_spos.retrain(loaded, path, tmp_path / "network.pt")
    assert len(trained.network.stage) == path["depth"]
    assert trained.costs["flops"] <= 50_000
    assert trained.costs["params"] == sum(x.numel() for x in trained.network.parameters())
