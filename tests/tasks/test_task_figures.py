"""Figures of every task, against an independent computation, however the images are batched."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.classification import MulticlassJaccardIndex, MultilabelAveragePrecision
from torchmetrics.regression import R2Score

from nni_spos.errors import RecipeError
from nni_spos.recipe.task import TaskSettings, find_task
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.scoring.tallies import Tallies
from nni_spos.tasks.base import LOG_LIKELIHOOD
from nni_spos.tasks.classification import Classification

NUM_IMAGES = 12


def task(name, **keys):
    return find_task(TaskSettings(name, keys))


def batch(name, seed=0):
    """Outputs of a network and targets of a task, for twelve images and three outputs."""
    generator = torch.Generator().manual_seed(seed)
    if name == "segmentation":
        outputs = torch.randn(NUM_IMAGES, 3, 4, 5, generator=generator)
        targets = torch.randint(3, (NUM_IMAGES, 4, 5), generator=generator)
        targets[0, :2] = 255
        return outputs, targets
    outputs = torch.randn(NUM_IMAGES, 3, generator=generator)
    if name == "classification":
        return outputs, torch.randint(3, (NUM_IMAGES,), generator=generator)
    if name == "multilabel":
        return outputs, torch.randint(2, (NUM_IMAGES, 3), generator=generator).float()
    return outputs, 3 + outputs + torch.randn(NUM_IMAGES, 3, generator=generator)


def figures(name, size, **keys):
    outputs, targets = batch(name)
    tallies = Tallies(task(name, **keys), num_paths=1)
    for part in zip(outputs.split(size), targets.split(size), strict=True):
        tallies.add(0, *part)
    return tallies.conclude()[0].figures


def expected(name):
    outputs, targets = batch(name)
    if name == "classification":
        first = (outputs.argmax(1) == targets).double().mean()
        return {"top1": 100 * first, "loss": nn.functional.cross_entropy(outputs, targets)}
    if name == "multilabel":
        precision = MultilabelAveragePrecision(3)(outputs.sigmoid(), targets.int())
        right = (outputs > 0) == targets.bool()
        loss = nn.functional.binary_cross_entropy_with_logits(outputs, targets)
        return {"map": precision, "accuracy": 100 * right.double().mean(), "loss": loss}
    if name == "regression":
        errors = (outputs - targets).double()
        return {
            "r2": R2Score()(outputs, targets),
            "mae": errors.abs().mean(),
            "rmse": (errors**2).mean().sqrt(),
            "loss": (errors**2).mean(),
        }
    union = MulticlassJaccardIndex(3, ignore_index=255)(outputs, targets)
    counted = targets != 255
    right = (outputs.argmax(1) == targets)[counted].double().mean()
    losses = [
        nn.functional.cross_entropy(x[None], y[None], ignore_index=255)
        for x, y in zip(outputs, targets, strict=True)
    ]
    return {"miou": 100 * union, "pixel_accuracy": 100 * right, "loss": sum(losses) / NUM_IMAGES}


NAMES = ("classification", "multilabel", "regression", "segmentation")


@pytest.mark.parametrize("size", [1, 5, 12])
@pytest.mark.parametrize("name", NAMES)
def test_figures_are_those_of_another_computation(name, size):
    found = figures(name, size)
    for figure, value in expected(name).items():
        assert found[figure] == pytest.approx(float(value), abs=1e-5), figure
    names = [x.name for x in task(name).figures]
    assert list(found) == [*names, "loss"]


@pytest.mark.parametrize("name", NAMES)
def test_an_output_that_is_not_finite_makes_all_figures_nan(name):
    outputs, targets = batch(name)
    outputs[3].view(-1)[0] = float("inf")
    tallies = Tallies(task(name), num_paths=2)
    tallies.add(0, outputs, targets)
    tallies.add(1, *batch(name))
    broken, whole = tallies.conclude()
    assert np.isnan(list(broken.figures.values())).all()
    assert np.isfinite(list(whole.figures.values())).all()


def test_a_classification_has_the_ranks_that_are_asked_for():
    found = figures("classification", 5, topk=[2, 1])
    assert list(found) == ["top2", "top1", "loss"]
    assert found["top1"] < found["top2"] < 100
    assert task("classification", topk=[2, 1]).objective == "top2"


def test_keys_of_a_training_do_not_change_the_loss_that_is_scored():
    plain = figures("classification", 12)["loss"]
    assert figures("classification", 12, class_weights=[5.0, 1, 1])["loss"] == plain
    outputs, targets = batch("classification")
    smooth = TrainSettings(steps=1, label_smoothing=0.2)
    sharp = TrainSettings(steps=1, label_smoothing=0.0)
    weighted = task("classification", class_weights=[5.0, 1, 1])
    weights = torch.tensor([5.0, 1, 1])
    for one, settings, smoothing in ((weighted, smooth, 0.2), (weighted, sharp, 0.0)):
        wanted = nn.functional.cross_entropy(
            outputs, targets, weight=weights, label_smoothing=smoothing
        )
        assert one.loss_of(settings)(outputs, targets) == wanted


def test_the_dice_loss_is_least_for_the_right_masks():
    outputs, targets = batch("segmentation")
    right = 50.0 * nn.functional.one_hot(targets.where(targets != 255, 0), 3).movedim(-1, 1)
    dice = task("segmentation", dice=1.0)
    assert dice.loss(right, targets) < 1e-6 < dice.loss(outputs, targets)
    both = task("segmentation", dice=0.5).loss(outputs, targets)
    plain = task("segmentation").loss(outputs, targets)
    assert both == pytest.approx(float(plain + dice.loss(outputs, targets)) / 2)


@pytest.mark.parametrize(
    ("criterion", "wanted"),
    [
        ({"criterion": "mse"}, nn.MSELoss()),
        ({"criterion": "l1"}, nn.L1Loss()),
        ({"criterion": "huber", "delta": 0.5}, nn.HuberLoss(delta=0.5)),
    ],
)
def test_a_regression_lowers_what_its_recipe_says(criterion, wanted):
    outputs, targets = batch("regression")
    assert task("regression", **criterion).loss(outputs, targets) == wanted(outputs, targets)


def test_values_that_are_always_the_same_have_no_part_in_r2():
    outputs, targets = batch("regression")
    targets[:, 0] = 2.5
    tallies = Tallies(task("regression"), num_paths=1)
    tallies.add(0, outputs, targets)
    wanted = R2Score()(outputs[:, 1:], targets[:, 1:])
    assert tallies.conclude()[0].r2 == pytest.approx(float(wanted), rel=1e-4)
    targets[:] = 2.5
    tallies = Tallies(task("regression"), num_paths=1)
    tallies.add(0, outputs, targets)
    assert np.isnan(tallies.conclude()[0].r2)


@pytest.mark.parametrize("name", NAMES)
def test_a_search_maximises_a_figure_of_the_task(name):
    found = task(name)
    assert found.figure(found.objective).is_better == "higher"
    assert LOG_LIKELIHOOD in [x.name for x in found.all_figures]


@dataclass(frozen=True)
class Forgetful(Classification):
    """Names two figures, and computes one."""

    def conclude(self, sums, num_images):
        return {"top1": 1.0}


def test_a_figure_that_is_named_and_not_computed_is_one_line():
    tallies = Tallies(Forgetful(), num_paths=1)
    tallies.add(0, *batch("classification"))
    message = "task Forgetful: top5 is one of its figures, and neither conclude nor metrics has it"
    with pytest.raises(RecipeError, match=f"{message}, but top1"):
        tallies.conclude()
