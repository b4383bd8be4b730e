"""What a step does to the weights, and with which learning rate."""

from __future__ import annotations

import logging

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from nni_spos.errors import RecipeError
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.training import TaskModule
from nni_spos.training.module import linear_decay
from nni_spos.training.resizing import resize, size_at

IMAGES = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


class Network(nn.Module):
    """Has a layer that takes no part after the first step."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm2d(1)
        self.used = nn.Linear(16, 3, bias=False)
        self.unused = nn.Linear(16, 3, bias=False)
        self.num_calls = 0
        self.layouts = []
        self.images = []

    def forward(self, images):
        self.images.append(images)
        self.layouts.append(images.is_contiguous(memory_format=torch.channels_last))
        self.num_calls += 1
        features = functional.adaptive_avg_pool2d(self.norm(images), 4).flatten(1)
        logits = self.used(features)
        return logits + self.unused(features) if self.num_calls == 1 else logits


class Recorder(pl.Callback):
    def __init__(self):
        self.rates = []
        self.weights = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.weights.append({k: v.clone() for k, v in pl_module.model.state_dict().items()})


def train(num_steps=3, **settings):
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    module = TaskModule(TrainSettings(steps=num_steps, **settings))
    network, recorder = Network(), Recorder()
    module.set_model(network)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=num_steps, max_epochs=-1, callbacks=[recorder],
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8))
    return network, recorder, trainer


def test_a_step_by_hand():
    settings = {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 0.1, "warmup_steps": 2}
    _, recorder, trainer = train(1, label_smoothing=0.2, **settings)
    network = Network()
    logits = network(IMAGES)
    loss = functional.cross_entropy(logits, LABELS, label_smoothing=0.2)
    loss.backward()
    weight = network.used.weight
    rate = 0.3 * 0.5  # the first of two steps of warm-up
    expected = weight - rate * (weight.grad + 0.1 * weight)
    torch.testing.assert_close(recorder.weights[0]["used.weight"], expected)
    # No decay for BatchNorm.
    expected = network.norm.weight - rate * network.norm.weight.grad
    torch.testing.assert_close(recorder.weights[0]["norm.weight"], expected)
    top1 = 100 * (logits.argmax(1) == LABELS).float().mean()
    assert float(trainer.callback_metrics["top1"]) == pytest.approx(float(top1))
    assert float(trainer.callback_metrics["loss"]) == pytest.approx(float(loss))


def test_momentum_and_decay_leave_weights_alone_that_a_step_did_not_use():
    _, recorder, _ = train(momentum=0.9, weight_decay=0.5)
    first, *rest = recorder.weights
    assert all(torch.equal(first["unused.weight"], other["unused.weight"]) for other in rest)
    assert not torch.equal(first["used.weight"], rest[0]["used.weight"])


def test_the_rate_falls_to_zero_in_every_step():
    _, recorder, _ = train(4, learning_rate=0.8)
    assert recorder.rates == pytest.approx([0.8, 0.6, 0.4, 0.2])
    _, recorder, _ = train(4, learning_rate=0.8, warmup_steps=2)
    assert recorder.rates == pytest.approx([0.4, 0.6, 0.4, 0.2])
    assert linear_decay(10)(11) == 0


def test_factors_of_the_learning_rate():
    rates = {"learning_rate": 0.3, "momentum": 0, "weight_decay": 0, "label_smoothing": 0}
    _, plain, _ = train(1, **rates)
    factors = (("used", 0.5), ("norm", 9.0), ("norm.bias", 2.0))
    _, recorder, _ = train(1, learning_rate_factors=factors, **rates)
    before = Network().state_dict()
    expected = {"used.weight": 0.5, "unused.weight": 1, "norm.weight": 9, "norm.bias": 2}
    for name, factor in expected.items():
        step = plain.weights[0][name] - before[name]
        assert step.abs().max() > 0
        torch.testing.assert_close(recorder.weights[0][name] - before[name], factor * step)
    assert recorder.rates == plain.rates


def test_small_images_at_first():
    network, _, _ = train(10, progressive_resizing=((2, 0.5), (3, 0.2)))
    assert [len(images[0, 0]) for images in network.images] == [2] * 5 + [3] * 2 + [4] * 3
    halved = IMAGES.unfold(2, 2, 2).unfold(3, 2, 2)
    assert network.images[0].shape == (8, 1, 2, 2)
    # A pixel of half the size is a mean over its own pixels, most of all, and those around it.
    assert torch.corrcoef(
        torch.stack([network.images[0].flatten(), halved.mean((4, 5)).flatten()])
    )[0, 1] == pytest.approx(1, abs=0.1)
    assert torch.equal(network.images[-1], IMAGES)


def test_both_sides_of_images_shrink():
    images = torch.rand(2, 1, 12, 20)
    assert resize(images, 6).shape == (2, 1, 6, 10)
    assert resize(images.transpose(2, 3), 9).shape == (2, 1, 15, 9)
    assert resize(images, None) is images
    settings = TrainSettings(steps=1, progressive_resizing=((10, 0.5),))
    settings.check_sizes((12, 20))
    with pytest.raises(RecipeError, match="must be smaller than the images, 10 pixels, got 10"):
        settings.check_sizes((20, 10))


@pytest.mark.parametrize(
    ("resizing", "sizes"),
    [((), [None] * 4), (((8, 1.0),), [8] * 4), (((8, 0.5), (4, 0.5)), [8, 8, 4, 4])],
)
def test_the_size_at_every_step(resizing, sizes):
    assert [size_at(resizing, step, 4) for step in range(4)] == sizes


def test_sizes_that_images_have_anyway():
    settings = TrainSettings(steps=1, progressive_resizing=((16, 0.5), (28, 0.5)))
    settings.check_sizes(32)
    with pytest.raises(RecipeError) as caught:
        settings.check_sizes(28)
    assert str(caught.value) == (
        "progressive_resizing: sizes must be smaller than the images, 28 pixels, got 28. "
        "Leave it out: the last steps use the whole images."
    )


def test_a_factor_for_a_part_that_the_network_does_not_have():
    with pytest.raises(RecipeError) as caught:
        train(1, learning_rate_factors=(("use", 0.5),))
    assert str(caught.value) == (
        "learning_rate_factors: unknown part 'use'; did you mean 'used'? Parts: norm, used, unused."
    )


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(channels_last):
    # With one channel both formats are the same memory.
    module = TaskModule(TrainSettings(steps=1, channels_last=channels_last))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module.set_model(network)
    module.on_fit_start()
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.log = lambda *_: None
    optimizer = type("O", (), {"param_groups": [{"lr": 1}]})
    module.trainer = type("T", (), {"optimizers": [optimizer], "global_step": 0})
    module.training_step((torch.randn(2, 3, 8, 8), torch.tensor([0, 1])), 0)
    for tensor in (seen[-1], network[0].weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last
