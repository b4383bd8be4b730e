"""Paths are scored together for every task, as each alone."""

import warnings

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.data.generated import GeneratedData
from nni_spos.errors import ScoringWarning
from nni_spos.path import PathSpace
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.registries import TASKS
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.recipe.task import TaskSettings, find_task
from nni_spos.scoring import tallies
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.supernet import SinglePathOneShot

SETTINGS = EvaluationSettings(recalibration_images=16, batch_size=8)


class Pixels(ModelSpace):
    """Three outputs for each pixel, or for an image their means."""

    def __init__(self, of_pixels):
        super().__init__()
        self.units = nn.Sequential(*(self.unit(1 + 3 * (i > 0), f"unit_{i}") for i in range(3)))
        self.head = nn.Conv2d(4, 3, 1)
        self.of_pixels = of_pixels

    def unit(self, inputs, label):
        kernels = {f"k{k}": nn.Conv2d(inputs, 4, k, padding=k // 2) for k in (1, 3)}
        return nn.Sequential(LayerChoice(kernels, label=label), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x):
        x = self.head(self.units(x))
        return x if self.of_pixels else x.mean((2, 3))


def made(name, **keys):
    """A supernet, all its paths, and data of a task."""
    task = find_task(TaskSettings(name, keys))
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(Pixels(name == "segmentation"))
    spec = DatasetSpec("generated", 3, 1, 6, 6, (0.5,), (0.5,), target=task.targets[0])
    space = PathSpace.from_model_space(supernet)
    return supernet, space.decode(space.enumerate()), GeneratedData(spec, 16, 20, task)


@pytest.mark.parametrize("name", TASKS.ours)
def test_figures_are_those_of_one_path_at_a_time(name):
    supernet, paths, data = made(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = evaluate_paths(supernet, paths, data, SETTINGS)
    alone = [evaluate_path(supernet, path, data, SETTINGS) for path in paths]
    assert len({x.loss for x in alone}) == 8
    assert together == alone
    assert {x.num_images for x in together} == {20}


def test_a_metric_that_would_keep_too_much_is_computed_path_by_path(monkeypatch):
    supernet, paths, data = made("multilabel")
    monkeypatch.setattr(tallies, "MOST_BYTES", 100)
    with pytest.warns(ScoringWarning, match="one by one: what map would keep of all of them"):
        found = evaluate_paths(supernet, paths[:3], data, SETTINGS)
    assert found == [evaluate_path(supernet, path, data, SETTINGS) for path in paths[:3]]
