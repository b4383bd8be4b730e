"""Networks that give other outputs each time, and those that only look so."""

import itertools
import random
import time
import warnings

import numpy as np
import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn
from torch.nn import functional

from nni_spos.data import open_data
from nni_spos.errors import ScoringWarning
from nni_spos.path import PathSpace
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring import repeatability
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.supernet import SinglePathOneShot

SETTINGS = EvaluationSettings(recalibration_images=64, batch_size=64)
PRIVATE = torch.Generator()
CALLS = itertools.count()


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", augmentation="none", num_validation=100))


class Steady(ModelSpace):
    """A stem, two units and a head; `between` is what a space of a user's adds."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        for label in ("a", "b"):
            unit = {"k1": nn.Conv2d(8, 8, 1), "k3": nn.Conv2d(8, 8, 3, padding=1)}
            setattr(self, label, LayerChoice(unit, label=label))
        self.head = nn.Linear(8, 10)

    def between(self, x):
        return x

    def forward(self, x):
        x = self.between(self.a(self.stem(x)))
        return self.head(self.b(x).mean((2, 3)))


class Noise(Steady):
    def between(self, x):
        return x + 0.1 * torch.rand_like(x)


class OwnGenerator(Steady):
    """No global generator shows it."""

    def between(self, x):
        return x * (1 + torch.rand(x.shape, generator=PRIVATE))


class NumpyNoise(Steady):
    def between(self, x):
        return x * float(np.random.rand())


class PythonNoise(Steady):
    def between(self, x):
        return x * (1 + random.random() * (x > 0))  # never the same twice


class FaintNoise(Steady):
    def between(self, x):
        return x * (1 + 1e-3 * torch.rand_like(x))


class Dropout(Steady):
    """``training=`` was forgotten."""

    def between(self, x):
        return functional.dropout(x, 0.2)


class AlwaysTrains(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)


class KeptInTraining(Steady):
    def __init__(self):
        super().__init__()
        self.drop = AlwaysTrains(0.3)

    def between(self, x):
        return self.drop(x)


class Augments(Steady):
    def forward(self, x):
        return super().forward(x.flip(-1) if torch.rand(()) < 0.5 else 1 - x)


class Counts(Steady):
    """The counter is not the network's own."""

    def between(self, x):
        return x.roll(next(CALLS) % 8, 1)


class Clock(Steady):
    def between(self, x):
        return x * (1 + time.perf_counter() % 1)


class SetOfLayers(Steady):
    """Their order is that of where they are in the memory."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(6))

    def between(self, x):
        for layer in set(self.layers):
            x = layer(x).sin()
        return x


class NoisyHead(Steady):
    """Its noise is behind all that paths share."""

    def forward(self, x):
        x = super().forward(x)
        return x + torch.randn_like(x)


class NoisySpace(Noise):
    """It does not share, whatever its noise: a unit runs twice."""

    def between(self, x):
        return self.a(super().between(x))


def score(space, data, **changes):
    """Score all paths twice, and return both results and all lines."""
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(space())
    labels = PathSpace.from_model_space(supernet)
    paths = labels.decode(labels.enumerate())
    settings = EvaluationSettings(recalibration_images=64, batch_size=64, **changes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [evaluate_paths(supernet, paths, data, settings) for _ in range(2)]
    lines = [str(w.message) for w in caught if w.category is ScoringWarning]
    return *found, lines


NOISY = [
    Noise, OwnGenerator, NumpyNoise, PythonNoise, FaintNoise, Dropout, KeptInTraining, Augments,
    Counts, Clock, SetOfLayers, NoisyHead, NoisySpace,
]  # fmt: skip


@pytest.mark.parametrize("recalibrate", [True, False])
@pytest.mark.parametrize("space", NOISY)
def test_other_outputs_each_time_are_told_in_a_line(data, space, recalibrate):
    _, _, lines = score(space, data, recalibrate=recalibrate)
    (line,) = set(lines)
    assert "it gives other outputs each time that it is run" in line
    assert "on the same images, of which" in line
    assert "other outputs than alone" not in line
    draws = space not in (OwnGenerator, Counts, Clock, SetOfLayers)
    assert ("it draws random numbers" in line) == draws


@pytest.mark.parametrize("space", [Noise, Counts])
def test_the_line_is_true(data, space):
    first, second, _ = score(space, data)
    assert [x.loss for x in first] != [x.loss for x in second]


def test_it_says_how_far_they_differ(data):
    def shown(space):
        _, _, lines = score(space, data)
        return float(lines[0].split("evaluation mode?), by ")[1].split(" %")[0])

    assert 0 < shown(FaintNoise) < 1 < shown(NoisyHead)


class DrawsInVain(Steady):
    """Draws numbers and does not use them."""

    def between(self, x):
        torch.rand(3)
        return x


class OwnCounter(Steady):
    """Every scoring has a copy that begins at nought."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def between(self, x):
        self.number += 1
        return x * (1 + self.number % 3)


class SeededNoise(Steady):
    def between(self, x):
        return x + torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(1))


class SetOfWords(Steady):
    """In one process its order is always the same."""

    def between(self, x):
        for number in {2, 1, 3}:
            x = (number * x).sin()
        return x


class NormInTraining(nn.BatchNorm2d):
    """Statistics of the batch, in every mode."""

    def train(self, mode=True):
        return super().train(True)


class KeepsNormInTraining(Steady):
    def __init__(self):
        super().__init__()
        self.norm = NormInTraining(8)

    def between(self, x):
        return self.norm(x)


@pytest.mark.parametrize(
    "space", [Steady, DrawsInVain, OwnCounter, SeededNoise, SetOfWords, KeepsNormInTraining]
)
def test_the_same_outputs_each_time_are_no_noise(data, space):
    first, second, lines = score(space, data)
    assert not any("other outputs each time" in line for line in lines)
    assert first == second


def test_a_network_without_noise_is_tried_once(data, monkeypatch):
    calls = []
    real = repeatability._find
    monkeypatch.setattr(repeatability, "_find", lambda *x, **y: calls.append(1) or real(*x, **y))
    _, _, lines = score(Steady, data)
    assert (calls, lines) == ([1], [])


class Fails(Steady):
    def between(self, x):
        raise ValueError("no such axis")


def test_a_path_that_fails_raises_what_it_raises_alone(data):
    supernet = SinglePathOneShot().mutate_model(Fails())
    path = {"a": "k1", "b": "k1"}
    with pytest.raises(ValueError, match="no such axis"):
        evaluate_path(supernet, path, data, SETTINGS)
    with (
        pytest.warns(ScoringWarning, match="together they fail"),
        pytest.raises(ValueError, match="no such axis"),
    ):
        evaluate_paths(supernet, [path], data, SETTINGS)


def test_nothing_is_left_of_the_trial(data):
    supernet = SinglePathOneShot().mutate_model(Steady())
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    state = torch.get_rng_state()
    evaluate_paths(supernet, [{"a": "k1", "b": "k3"}], data, SETTINGS)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
