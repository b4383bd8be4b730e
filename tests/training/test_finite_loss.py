"""A training ends soon after a loss that is not finite, and says of which step."""

import math

import pytest
import torch

from nni_spos.cli import main
from nni_spos.training import finite_loss
from nni_spos.training.finite_loss import INTERVAL, FiniteLoss, LossNotFinite

RECIPE = """
output: out
space: {{name: "my_space:{space}"}}
data: {{name: digits, augmentation: none}}
supernet: {{steps: {steps}, batch_size: 16, learning_rate: {rate}}}
retrain: {{steps: {steps}, batch_size: 16, learning_rate: {rate}}}
"""

CODE = """
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

class Log(nn.Module):
    def forward(self, x):
        return torch.log(x - 0.5)

class Space(ModelSpace):
    def __init__(self, other):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.a = LayerChoice({"conv": nn.Conv2d(8, 8, 1), "other": other}, label="a")
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.a(self.stem(x)).mean((2, 3)))

class Bad(Space):
    def __init__(self):
        super().__init__(Log())

class Good(Space):
    def __init__(self):
        super().__init__(nn.Identity())
"""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_it_is_seen_at_once_on_a_cpu(value):
    watch = FiniteLoss()
    watch.note(torch.tensor(3e38), 6)
    with pytest.raises(LossNotFinite, match="in step 7") as caught:
        watch.note(torch.tensor(value), 7)
    assert caught.value.step == 7


class OnDevice:
    """A loss on a device that is not the CPU, as far as FiniteLoss looks."""

    def __init__(self, value):
        self.value, self.device = torch.tensor(value), torch.device("cuda")

    def isfinite(self):
        return self.value.isfinite()


def test_on_a_device_the_first_bad_step_is_named_some_steps_later(monkeypatch):
    full = torch.full
    monkeypatch.setattr(finite_loss.torch, "full", lambda *a, device, **k: full(*a, **k))
    watch, losses = FiniteLoss(), [1.0] * INTERVAL
    losses[4] = losses[6] = math.nan
    for step, loss in enumerate(losses[:-1]):
        watch.note(OnDevice(loss), step)
    with pytest.raises(LossNotFinite, match="in step 4"):
        watch.check()
    with pytest.raises(LossNotFinite, match="in step 4"):
        watch.note(OnDevice(losses[-1]), INTERVAL - 1)


def run(folder, monkeypatch, command, space="Good", rate=0.1, steps=8):
    (folder / "my_space.py").write_text(CODE)
    (folder / "recipe.yml").write_text(RECIPE.format(space=space, rate=rate, steps=steps))
    monkeypatch.chdir(folder)
    return main(command)


@pytest.mark.slow
def test_the_path_of_a_supernets_step_is_named(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, monkeypatch, ["train", "recipe.yml"], space="Bad") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "the loss is not finite in step" in line
    assert "on the path {'a': 'other'}" in line
    assert not list((tmp_path / "out").glob("*.pt"))
    assert run(tmp_path, monkeypatch, ["train", "recipe.yml", "--overwrite"]) == 0


def test_a_learning_rate_that_is_too_high_ends_a_retraining(tmp_path, monkeypatch, capsys):
    (tmp_path / "path.json").write_text('{"a": "conv"}')
    command = ["retrain", "recipe.yml", "--path", "path.json"]
    assert run(tmp_path, monkeypatch, command, rate=1e30) == 2
    assert "the loss is not finite in step" in capsys.readouterr().err
    assert not (tmp_path / "out" / "retrained.pt").exists()
