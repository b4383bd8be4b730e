"""Steps of several paths give the weights of a loop that averages their gradients itself."""

from __future__ import annotations

import dataclasses

import nni
import numpy as np
import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback
from torch import nn
from torch.nn import functional

from nni_spos.cost_table import CostTable, Factor
from nni_spos.data import open_data
from nni_spos.errors import RecipeError
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.path import PathSpace
from nni_spos.priors import FilteredPrior, UniformPrior
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.training_settings import SupernetSettings
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training import build_evaluator, training_session
from nni_spos.training.composed import build_techniques
from nni_spos.training.technique import SUPERNET, Technique

STEPS, BATCH, RATE, DECAY = 14, 10, 0.2, 0.01
COMMON = {"steps": STEPS, "batch_size": BATCH, "learning_rate": RATE, "weight_decay": DECAY,
          "label_smoothing": 0.0, "seed": 3, "channels_last": False}  # fmt: skip
LARGEST = {"unit": "k3", "inner": 6, "width": 6}
SMALLEST = {"unit": "k1", "inner": 2, "width": 2}


class Space(ModelSpace):
    """A unit of layers, and a layer of which two paths use parts that are no rectangle together."""

    def __init__(self):
        super().__init__()
        inner, width = nni.choice("inner", [2, 4, 6]), nni.choice("width", [2, 4, 6])
        self.unit = LayerChoice(
            {"k1": nn.Conv2d(1, 3, 1), "k3": nn.Conv2d(1, 3, 3, padding=1)}, label="unit"
        )
        self.norm = nn.BatchNorm2d(3)
        self.conv = MutableConv2d(3, inner, 3, stride=2)
        self.last = MutableConv2d(inner, width, 3)
        self.classifier = MutableLinear(width, 10)

    def forward(self, x):
        x = functional.relu(self.conv(functional.relu(self.norm(self.unit(x)))))
        return self.classifier(self.last(x).mean((2, 3)))


class OwnPaths(Technique):
    """What a user's technique may do: the same path twice, and a note of what it was told."""

    sections = (SUPERNET,)
    told: list = []  # noqa: RUF012

    def paths(self, paths, sampling, step):
        return [*paths, *paths]

    def begin_path(self, path, position):
        self.told.append((path, position))


class NoPaths(OwnPaths):
    def paths(self, paths, sampling, step):
        return []


class LargestPath(OwnPaths):
    def paths(self, paths, sampling, step):
        return [sampling.largest]


class WrongPaths(OwnPaths):
    def paths(self, paths, sampling, step):
        return [{"unit": "k9"}]


def supernet() -> ModelSpace:
    torch.manual_seed(0)
    return SinglePathOneShot().mutate_model(Space())


def prior() -> UniformPrior:
    return UniformPrior(PathSpace.from_model_space(Space()), seed=1)


def costs():
    space = prior().space
    factors = [Factor(("unit",), np.array([1, 9])), Factor(("inner", "width"),
               np.outer([2, 4, 6], [2, 4, 6]))]  # fmt: skip
    return {"flops": CostTable("flops", space, 0, factors)}


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))


class FirstStep(Callback):
    """Notes what is logged of the first step."""

    def __init__(self):
        self.figures: dict[str, float] = {}

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 1:
            self.figures = {name: float(x) for name, x in trainer.callback_metrics.items()}


def train(data, *techniques, callbacks=(), accepts=None, **changes):
    model = supernet()
    settings = SupernetSettings(**{**COMMON, **changes}, techniques=list(techniques))
    evaluator = build_evaluator(
        settings, data, layout=torch.contiguous_format, callbacks=list(callbacks)
    )
    with training_session():
        SinglePathOneShot(prior(), costs=costs(), filter=accepts)(
            RawFormatModelSpace.from_model(model, evaluator), SequentialExecutionEngine()
        )
    return model.state_dict()


def mask_of(model, path):
    """Return what a path uses of each parameter, by hand: 1 or 0 for every element."""
    inner, width = path["inner"], path["width"]
    used = {name: torch.ones_like(x) for name, x in model.named_parameters()}
    for name, mask in used.items():
        if name.startswith("unit."):
            mask *= name.split(".")[1] == path["unit"]
    used["conv.weight"][inner:] = used["conv.bias"][inner:] = 0
    used["last.weight"][width:] = used["last.bias"][width:] = 0
    used["last.weight"][:, inner:] = 0
    used["classifier.weight"][:, width:] = 0
    return used


def loop(data, paths_at, loss_of, accumulated=1):
    """Train without Lightning and without our optimizer: each element for itself."""
    model = supernet()
    units = [x for x in model.modules() if hasattr(x, "resample")]
    momenta = {name: torch.zeros_like(x) for name, x in model.named_parameters()}
    batches = data.train_loader(BATCH, COMMON["seed"])
    model.train()
    step = number = 0
    while step < STEPS:
        batches.sampler.set_epoch(number // len(batches))
        for images, labels in batches:
            paths = paths_at(step)
            shared: dict = {}
            for position, path in enumerate(paths):
                for unit in units:
                    unit.resample(memo=path)
                loss = loss_of(model(images), labels, position, shared)
                (loss / len(paths) / accumulated).backward()
            number += 1
            if number % accumulated:
                continue
            masks = [mask_of(model, path) for path in paths]
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    used = torch.stack([mask[name] for mask in masks]).amax(0).bool()
                    gradient = torch.zeros_like(parameter)
                    if parameter.grad is not None:
                        gradient += parameter.grad
                    if parameter.dim() > 1:
                        gradient += DECAY * parameter
                    moment = 0.9 * momenta[name] + gradient
                    momenta[name] = torch.where(used, moment, momenta[name])
                    rate = RATE * (1 - step / STEPS)
                    parameter.copy_(torch.where(used, parameter - rate * moment, parameter))
                    parameter.grad = None
            step += 1
            if step == STEPS:
                break
    return model.state_dict()


def targets_alone(outputs, labels, position, shared):
    return functional.cross_entropy(outputs, labels)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-4, atol=2e-6, msg=name)


def test_the_gradients_of_the_paths_are_averaged(data):
    drawn = prior()
    found = train(data, {"name": "paths", "paths": 3})
    expected = loop(data, lambda step: [drawn.path(3 * step + i) for i in range(3)], targets_alone)
    assert_close(found, expected)
    assert int(found["norm.num_batches_tracked"]) == 3 * STEPS


def test_the_sandwich_has_the_largest_and_the_smallest_path(data):
    drawn = prior()
    found = train(data, {"name": "paths", "paths": 3, "sandwich": True})
    expected = loop(data, lambda step: [LARGEST, SMALLEST, drawn.path(step)], targets_alone)
    assert_close(found, expected)


def test_the_largest_path_teaches_the_others(data):
    def taught(outputs, labels, position, shared):
        if position == 0:
            shared["teacher"] = functional.softmax(outputs.detach() / 2, 1)
            return functional.cross_entropy(outputs, labels)
        soft = functional.cross_entropy(outputs / 2, shared["teacher"])
        return 0.25 * functional.cross_entropy(outputs, labels) + 0.75 * 4 * soft

    drawn = prior()
    table = costs()["flops"]
    found = train(
        data,
        {"name": "paths", "paths": 2},
        {"name": "inplace_distillation", "inplace_distillation": True,
         "inplace_temperature": 2.0, "inplace_weight": 0.75},
    )  # fmt: skip
    expected = loop(
        data,
        lambda step: sorted((drawn.path(2 * step + i) for i in range(2)),
                            key=table.price, reverse=True),
        taught,
    )  # fmt: skip
    assert_close(found, expected)


@pytest.mark.parametrize("weight", [1.0, 0.75])
def test_the_losses_of_targets_and_of_the_teacher_are_logged_each_by_itself(data, weight):
    pair = sorted(prior().paths(0, 2), key=costs()["flops"].price, reverse=True)
    model = supernet().train()
    images, labels = next(iter(data.train_loader(BATCH, COMMON["seed"])))
    outputs = []
    for path in pair:
        set_path(choice_units(model), path)
        with torch.no_grad():
            outputs.append(model(images))
    plain = [float(functional.cross_entropy(x, labels)) for x in outputs]
    teacher, learner = (functional.softmax(x / 2, 1) for x in outputs)
    distance = float((teacher * (teacher.log() - learner.log())).sum(1).mean())
    first = FirstStep()
    train(
        data,
        {"name": "paths", "paths": 2},
        {"name": "inplace_distillation", "inplace_distillation": True,
         "inplace_temperature": 2.0, "inplace_weight": weight},
        callbacks=[first],
        steps=1,
    )  # fmt: skip
    assert first.figures["loss"] == pytest.approx(sum(plain) / 2, rel=1e-5)
    assert first.figures["distillation_loss"] == pytest.approx(4 * distance, rel=1e-4)
    train(data, {"name": "paths", "paths": 2}, callbacks=[first], steps=1)
    assert first.figures["loss"] == pytest.approx(sum(plain) / 2, rel=1e-5)
    assert "distillation_loss" not in first.figures


def test_paths_of_a_sandwich_that_a_filter_refuses_are_refused(data):
    sandwich = {"name": "paths", "paths": 3, "sandwich": True}
    for path in (LARGEST, SMALLEST):
        with pytest.raises(RecipeError, match=r"^sandwich: trains the path .* the filter of"):
            train(data, sandwich, accepts=lambda drawn, refused=path: drawn != refused)
    drawn = FilteredPrior(prior(), lambda path: path["inner"] != 4)
    found = train(data, sandwich, accepts=lambda path: path["inner"] != 4)
    expected = loop(data, lambda step: [LARGEST, SMALLEST, drawn.path(step)], targets_alone)
    assert_close(found, expected)


def test_paths_of_a_users_technique_must_pass_the_filter(data):
    technique = {"name": f"{__name__}:LargestPath"}
    with pytest.raises(RecipeError, match=r"^technique .*LargestPath: trains the path .* filter"):
        train(data, technique, accepts=lambda path: path["inner"] < 6, steps=1)
    train(data, technique, accepts=lambda path: path["inner"] > 2, steps=1)


def test_batches_that_make_a_step_train_the_same_paths(data):
    drawn = prior()
    found = train(data, {"name": "paths", "paths": 2}, {"name": "accumulate", "accumulate": 2})
    expected = loop(
        data, lambda step: [drawn.path(2 * step + i) for i in range(2)], targets_alone, 2
    )
    assert_close(found, expected)


def test_one_path_a_step_is_a_training_without_the_technique(data):
    found = train(data, {"name": "paths", "paths": 1})
    expected = train(data)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_what_no_path_of_a_step_used_stays_with_every_optimizer(data, opt):
    first = prior().paths(0, 2)
    before = supernet()
    found = train(
        data, {"name": "paths", "paths": 2}, {"name": "opt", "opt": opt}, steps=1, weight_decay=0.5
    )
    masks = [mask_of(before, path) for path in first]
    for name, parameter in before.named_parameters():
        used = torch.stack([mask[name] for mask in masks]).amax(0).bool()
        assert torch.equal(found[name][~used], parameter.detach()[~used]), name
        if parameter.dim() > 1:
            assert (found[name][used] != parameter.detach()[used]).all(), name


def test_a_technique_of_the_users_can_do_it_too(data):
    OwnPaths.told.clear()
    drawn = prior()
    found = train(data, {"name": f"{__name__}:OwnPaths"})
    expected = loop(data, lambda step: [drawn.path(step)] * 2, targets_alone)
    assert_close(found, expected)
    assert OwnPaths.told[:3] == [(drawn.path(0), 0), (drawn.path(0), 1), (drawn.path(1), 0)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoPaths", "must return at least one path"),
        ("WrongPaths", "one of no such space"),
    ],
)
def test_wrong_paths_of_a_technique_are_named(data, name, message):
    with pytest.raises(RecipeError, match=f"technique .*{name}: paths .*{message}"):
        train(data, {"name": f"{__name__}:{name}"})


@pytest.mark.parametrize(
    ("techniques", "changes", "message"),
    [
        ([{"name": "paths", "sandwich": True}], {}, "sandwich: takes the .* paths is 1"),
        ([{"name": "inplace_distillation", "inplace_distillation": True}], {},
         "inplace_distillation: a step has one path"),
        ([{"name": "paths", "paths": 2}], {"strategy": "ddp", "devices": 2},
         "paths: several processes with strategy: ddp"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(data, techniques, changes, message):
    with pytest.raises(RecipeError, match=message):
        train(data, *techniques, **changes)


def test_targets_that_distillation_does_not_know_are_refused():
    data = open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))
    settings = SupernetSettings(
        **COMMON,
        techniques=[{"name": "paths", "paths": 2},
                    {"name": "inplace_distillation", "inplace_distillation": True}],
    )  # fmt: skip
    build_techniques(settings, data.spec)
    with pytest.raises(RecipeError, match="inplace_distillation: does not know targets"):
        build_techniques(settings, dataclasses.replace(data.spec, target="value"))
