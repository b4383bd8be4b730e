"""What every training technique promises."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import nni
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from torch import Tensor, nn

from nni_spos.components import declared_keys
from nni_spos.data import ImageData, open_data
from nni_spos.mutables import MutableConv2d, MutableLinear
from nni_spos.profilers import build_costs
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.registries import TECHNIQUES
from nni_spos.recipe.techniques import RecipePlace, TechniqueSettings
from nni_spos.recipe.training_settings import RetrainSettings, SupernetSettings
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training import build_evaluator, last_checkpoint, training_session
from nni_spos.training.technique import RETRAIN, SUPERNET

EPOCHS = 3
"""Of a training, two steps each."""


class TechniqueCase:
    """A technique as a recipe names it, in the training of a network of three layers.

    One that is for supernets alone is in the training of a small supernet.

    Parameters
    ----------
    name
        As in the list ``techniques`` of a recipe; or the name of one of ours.
    folder
        Where a user's module is looked for: the recipe's folder.
    keys
        Those that the technique declares, so that it is on.
    """

    def __init__(self, name: str, folder: str | os.PathLike[str] | None = None, **keys: Any):
        place = RecipePlace(None if folder is None else FilePath(folder).absolute())
        self.technique = TechniqueSettings(name, keys, place)

    def data(self) -> ImageData:
        """Return forty images of ten classes, 8x8 pixels."""
        return open_data(DataSettings("digits", image_size=8, num_train=40, num_validation=20))

    def network(self) -> nn.Module:
        """Return an untrained network or supernet, always the same one."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if not self._is_for_supernets:
                return _Net()
            supernet = SinglePathOneShot().mutate_model(_Space())
            self.technique.find().change_supernet(self.technique.own(), supernet)
            return supernet

    @property
    def _is_for_supernets(self) -> bool:
        return RETRAIN not in self.technique.find().sections

    def train(self, folder: FilePath, resume: FilePath | None = None) -> dict[str, Tensor]:
        """Train, and return weights and statistics."""
        cls = SupernetSettings if self._is_for_supernets else RetrainSettings
        settings = cls(
            epochs=EPOCHS, batch_size=20, learning_rate=0.05, techniques=(self.technique,)
        )
        network = self.network()
        evaluator = build_evaluator(settings, self.data(), folder, resume=resume)
        with training_session():
            if isinstance(network, ModelSpace):
                costs = build_costs(_Space(), (1, 8, 8))
                trained = RawFormatModelSpace.from_model(network, evaluator)
                SinglePathOneShot(costs=costs)(trained, SequentialExecutionEngine())
            else:
                evaluator.evaluate(network)
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}


class _Net(nn.Module):
    """Has what techniques look for: a residual branch, BatchNorm, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = _SmallBlock()
        self.classifier = nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.block(self.norm(self.stem(images)).relu())
        found: Tensor = self.classifier(features.mean((2, 3)))
        return found


class _Space(ModelSpace):
    """Has layers and channel numbers to choose from."""

    def __init__(self) -> None:
        super().__init__()
        width = nni.choice("width", [2, 4])
        blocks = {"k1": nn.Conv2d(1, 4, 1), "k3": nn.Conv2d(1, 4, 3, padding=1)}
        self.unit = LayerChoice(blocks, label="unit")
        self.norm = nn.BatchNorm2d(4)
        self.conv = MutableConv2d(4, width, 3, stride=2)
        self.classifier = MutableLinear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(self.norm(self.unit(images)).relu())
        found: Tensor = self.classifier(features.mean((2, 3)))
        return found


class _SmallBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.residual_branch = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = x + self.residual_branch(x)
        return found


def declares_itself(case: TechniqueCase) -> None:
    """It says for which sections it is; its keys have defaults, and those of ours a switch."""
    cls = case.technique.find()
    assert cls.sections, "its sections are empty"
    assert set(cls.sections) <= {SUPERNET, RETRAIN}, f"sections {cls.sections} are not all known"
    assert dataclasses.is_dataclass(cls.Settings), "its class Settings is no dataclass"
    assert set(cls.switches()) <= set(declared_keys(cls)), "a switch is none of its keys"
    if case.technique.name in TECHNIQUES.ours:
        assert not cls.is_on(case.technique.find().Settings()), (
            "it is on without having been asked for"
        )


def repeats_itself(case: TechniqueCase) -> None:
    """Two trainings give the same weights, whatever PyTorch's generators were before."""
    weights = []
    for seed in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(seed)
            weights.append(case.train(FilePath(folder)))
    _assert_same(weights[0], weights[1], "two trainings differ in")


def goes_on_where_it_was_cut_off(case: TechniqueCase) -> None:
    """A training that goes on from a checkpoint gives the weights of one that was not cut off."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = case.train(FilePath(one))
        checkpoints = sorted(FilePath(one).glob("step_*.ckpt"))
        assert len(checkpoints) > 1, "the training ended in its first epoch"
        resumed = case.train(FilePath(other), checkpoints[-2])
        _assert_same(whole, resumed, "a resumed training differs in")
        finished = case.train(FilePath(other), last_checkpoint(FilePath(one)))
        _assert_same(whole, finished, "a training that had only to be finished differs in")


def leaves_the_network_as_it_is(case: TechniqueCase) -> None:
    """A trained network has the tensors of an untrained one, of the same shapes."""
    before = {name: tensor.shape for name, tensor in case.network().state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        after = {name: tensor.shape for name, tensor in case.train(FilePath(folder)).items()}
    assert before == after, "tensors of the network were added, taken away, or changed in shape"


def _assert_same(one: dict[str, Tensor], other: dict[str, Tensor], words: str) -> None:
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), f"{words} '{name}'"


CHECKS: tuple[Callable[[TechniqueCase], None], ...] = (
    declares_itself,
    repeats_itself,
    goes_on_where_it_was_cut_off,
    leaves_the_network_as_it_is,
)
"""What a technique promises; each raises AssertionError with what is wrong."""
