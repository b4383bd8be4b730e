"""Scores do not depend on the memory format, also of networks that run in one only."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.data import open_data
from nni_spos.errors import FormatWarning
from nni_spos.latency.profiler import LatencyProfiler
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths, score
from nni_spos.scoring.recalibration import recalibrate
from nni_spos.search.nas_strategy import SupernetEvaluator
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training import build_evaluator, training_session

PATHS = [{"conv2": "k3"}, {"conv2": "k5"}]
SETTINGS = EvaluationSettings(batch_size=64, recalibration_images=64)


@pytest.fixture(scope="module")
def data():
    settings = {"num_train": 128, "num_validation": 60, "augmentation": "none"}
    return open_data(DataSettings("digits", **settings))


class LeNet(ModelSpace):
    """With x.view, as in many tutorials."""

    def __init__(self, on_one_path=False):
        super().__init__()
        self.on_one_path = on_one_path
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.norm = nn.BatchNorm2d(6)
        k3, k5 = nn.Conv2d(6, 16, 3, padding=1), nn.Conv2d(6, 16, 5, padding=2)
        if on_one_path:
            k5 = nn.Sequential(k5, Viewed())
        self.conv2 = LayerChoice({"k3": k3, "k5": k5}, label="conv2")
        self.fc = nn.Linear(256, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1) if self.on_one_path else x.view(-1, 256))


class Viewed(nn.Module):
    def forward(self, x):
        return x.view(x.shape[0], -1).view(x.shape)


class Strided(nn.Module):
    """It runs in every format, and reads how far apart the channels lie."""

    def forward(self, x):
        return x * (1.0 if x.stride(1) > 1 else -1.0)


def mutated(space, seed=0):
    torch.manual_seed(seed)
    return SinglePathOneShot().mutate_model(space())


@pytest.fixture(params=[LeNet, lambda: LeNet(on_one_path=True)], ids=["always", "on one path"])
def supernet(request):
    return mutated(request.param)


@pytest.mark.parametrize("weights", [torch.contiguous_format, torch.channels_last])
def test_every_way_of_scoring(supernet, data, weights):
    expected = [evaluate_path(supernet, path, data, SETTINGS, False) for path in PATHS]
    supernet.to(memory_format=weights)
    strides = [x.stride() for x in supernet.parameters()]
    with pytest.warns(FormatWarning, match=r"view size.*contiguous format is used") as found:
        assert [evaluate_path(supernet, path, data, SETTINGS) for path in PATHS] == expected
    assert sum(x.category is FormatWarning for x in found) == 1, "once for a supernet"
    together = evaluate_paths(supernet, PATHS, data, SETTINGS)
    evaluator = SupernetEvaluator(supernet, data, SETTINGS)
    for path, one, alone in zip(PATHS, together, expected, strict=True):
        assert one.loss == pytest.approx(alone.loss, rel=1e-5)
        assert evaluator.evaluate(path)["loss"] == pytest.approx(alone.loss, rel=1e-5)
    # Without channels_last, weights that lie in it are no reason to fail either.
    assert [evaluate_path(supernet, path, data, SETTINGS, False) for path in PATHS] == expected
    assert [x.stride() for x in supernet.parameters()] == strides, "as it was"


def test_a_network_by_itself(data):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), Viewed(), nn.Flatten(), nn.LazyLinear(10)]
    network = nn.Sequential(*layers)
    network(torch.zeros(2, 1, 16, 16))
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    batches = data.validation_batches(30)
    assert recalibrate(network, batches, channels_last=False) == 60
    with pytest.warns(FormatWarning, match="view size"):
        assert recalibrate(other, batches) == 60
    assert torch.equal(other[1].running_var, network[1].running_var)
    assert score(other, batches) == score(network, batches, channels_last=False)


def test_results_that_follow_the_format(data):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), Strided(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    )
    batches = data.validation_batches(30)
    with pytest.warns(FormatWarning, match="its results are others there"):
        found = score(network, batches)
    assert found == score(network, batches, channels_last=False)


@pytest.mark.parametrize("noise", [False, True], ids=["as it is", "with noise"])
def test_others_run_in_channels_last(data, noise):
    class Sees(nn.Module):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return x + torch.randn_like(x) if noise else x

    seen = []
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), Sees(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score(network, data.validation_batches(30))
    assert seen[-2:] == [True, True], "both batches"


def test_it_is_trained_by_a_script_of_ones_own(data):
    settings = TrainSettings(steps=2, batch_size=16)
    network = mutated(LeNet).conv2["k3"]
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), network, Viewed(), nn.Flatten())
    model.append(nn.Linear(16 * 16 * 16, 10))
    before = model[0].weight.detach().clone()
    with training_session(), pytest.warns(FormatWarning, match="view size"):
        build_evaluator(settings, data).evaluate(model)
    assert not torch.equal(before, model[0].weight)
    assert model[0].weight.is_contiguous()


def test_its_latency_is_measured_and_says_in_which_format():
    with pytest.warns(FormatWarning, match="view size"):
        table = LatencyProfiler(rounds=1).profile(LeNet(), (1, 16, 16), num_paths=2)
    assert not table.conditions.channels_last
    with pytest.warns(FormatWarning, match="view size"):
        assert LatencyProfiler(rounds=1).measure(LeNet().freeze(PATHS[0]), (1, 16, 16)) > 0
