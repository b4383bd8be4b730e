"""Training a space of blocks, channel numbers and bit widths: what a step leaves alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback
from torch import nn

from nni_spos.data import open_data
from nni_spos.errors import QuantizationError
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import (
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    QuantConv2d,
    bits_choice,
    channel_choice,
)
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training import build_evaluator, training_session

STEPS = 12


class Small(ModelSpace):
    """One choice of each kind, all in one network for images of 8 x 8 pixels."""

    def __init__(self, with_relu: bool = True):
        super().__init__()
        width = channel_choice("width", 8, scales=[0.5, 0.75, 1])
        bits = bits_choice("bits", [(2, 2), (2, 4), (4, 4)])
        self.stem = nn.Sequential(
            MutableConv2d(1, width, 3, padding=1, bias=False),
            MutableBatchNorm2d(width),
            nn.ReLU() if with_relu else nn.Identity(),
        )
        self.block = LayerChoice(
            {
                f"k{k}": nn.Sequential(
                    MutableConv2d(width, width, k, padding=k // 2, groups=width, bias=False),
                    MutableBatchNorm2d(width),
                    nn.ReLU() if with_relu else nn.Identity(),
                )
                for k in (3, 5)
            },
            label="block",
        )
        self.conv = QuantConv2d(
            width, width, 3, 2, bias=False, initial_clip=1.0,
            weight_bits=bits.weight, activation_bits=bits.activation,
        )  # fmt: skip
        self.norm = MutableBatchNorm2d(width)
        self.classifier = MutableLinear(width, 10)
        self.init_weights()

    def init_weights(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.norm(self.conv(self.block(self.stem(x)))).relu()
        return self.classifier(x.mean((2, 3)))


PRIOR = UniformPrior(PathSpace.from_model_space(Small()), seed=3)


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))


class Recorder(Callback):
    """Keeps the weights, and the momenta that there are, before the first and after each step."""

    def __init__(self):
        self.weights = []
        self.momenta = []

    def on_train_start(self, trainer, pl_module):
        self.on_train_batch_end(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        state = pl_module.model.state_dict()
        self.weights.append({name: tensor.clone() for name, tensor in state.items()})
        state = trainer.optimizers[0].state
        momenta = {n: state.get(p, {}) for n, p in pl_module.model.named_parameters()}
        self.momenta.append(
            {n: x["momentum_buffer"].clone() for n, x in momenta.items() if "momentum_buffer" in x}
        )


def train(data, prior=PRIOR, space=None, **settings):
    torch.manual_seed(0)
    space = space or Small()
    settings = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.1} | settings
    evaluator = build_evaluator(TrainSettings(steps=STEPS, batch_size=20, **settings), data)
    recorder = Recorder()
    evaluator.trainer.callbacks.append(recorder)
    model = RawFormatModelSpace.from_model(space, evaluator)
    with training_session():
        SinglePathOneShot(prior)(model, SequentialExecutionEngine())
    return space, recorder


def used_by(path):
    """Return which part of each tensor a path uses; None stands for nothing of it."""
    w, block, bits = path["width"], path["block"], path["bits"]
    parts = {
        "stem.0.weight": (slice(w),),
        "conv.weight": (slice(w), slice(w)),
        "classifier.weight": (slice(10), slice(w)),
        "classifier.bias": (),
    }
    for k in (3, 5):
        parts[f"block.k{k}.0.weight"] = (slice(w),) if block == f"k{k}" else None
    for clip in (2, 4):
        parts[f"conv.clips.{clip}"] = () if bits.endswith(f"w{clip}a") else None
    for norm in ("stem.1", "norm", "block.k3.1", "block.k5.1"):
        is_used = not norm.startswith("block") or norm.startswith(f"block.{block}.")
        for tensor in ("weight", "bias", "running_mean", "running_var"):
            parts[f"{norm}.{tensor}"] = (slice(w),) if is_used else None
        parts[f"{norm}.num_batches_tracked"] = () if is_used else None
    return parts


def mask_of(tensor, part):
    mask = torch.zeros(tensor.shape, dtype=torch.bool)
    if part is not None:
        mask[part] = True
    return mask


def parts_over_time(recorder):
    """Yield (path, name, mask of what it uses, before, after) of all steps and tensors."""
    for step, (before, after) in enumerate(itertools.pairwise(recorder.weights)):
        parts = used_by(PRIOR.path(step))
        assert set(parts) == set(before)
        for name, part in parts.items():
            yield step, name, mask_of(before[name], part), before[name], after[name]


def test_the_paths_of_these_tests_are_of_all_kinds():
    paths = [PRIOR.path(step) for step in range(STEPS)]
    for label, choices in PRIOR.space.items():
        assert {path[label] for path in paths} == set(choices)


def test_a_step_changes_nothing_outside_of_its_path_bit_for_bit(data):
    _, recorder = train(data)
    had_momentum = 0
    for step, name, used, before, after in parts_over_time(recorder):
        assert torch.equal(before[~used], after[~used]), (step, name)
        if used.any():
            assert not torch.equal(before[used], after[used]), (step, name)
        if name in recorder.momenta[step]:
            earlier, later = (recorder.momenta[i][name] for i in (step, step + 1))
            assert torch.equal(earlier[~used], later[~used]), (step, name)
            had_momentum += int((earlier[~used] != 0).sum())
    # With a momentum that is not zero, weights stay as they are only if they are left out.
    assert had_momentum > 100
    assert len(recorder.weights) == STEPS + 1


def test_with_scope_tensor_momentum_and_decay_act_outside_of_the_slice(data):
    _, recorder = train(data, update_scope="tensor")
    changed, decayed = set(), 0
    for step, name, used, before, after in parts_over_time(recorder):
        if not used.any() or "running" in name:
            assert torch.equal(before[~used], after[~used]), (step, name)
            continue
        if torch.equal(before[~used], after[~used]):
            continue
        changed.add(name)
        rate = 0.05 * (1 - step / STEPS)
        old = recorder.momenta[step].get(name, torch.zeros_like(before))
        decay = 0.1 if before.dim() > 1 else 0
        # No gradient outside: only the decay, and 0.9 of the momentum.
        expected = before - rate * (0.9 * old + decay * before)
        torch.testing.assert_close(after[~used], expected[~used], rtol=0, atol=1e-6)
        decayed += decay > 0
    assert {"stem.0.weight", "conv.weight", "classifier.weight", "norm.bias"} < changed
    assert decayed > 5


def test_within_the_slice_both_scopes_do_the_same_at_first(data):
    sliced, whole = (train(data, update_scope=scope)[1] for scope in ("slice", "tensor"))
    parts = used_by(PRIOR.path(0))
    for name, part in parts.items():
        one, other = (recorder.weights[1][name] for recorder in (sliced, whole))
        used = mask_of(one, part)
        torch.testing.assert_close(one[used], other[used], rtol=0, atol=1e-6)
    assert any(not torch.equal(sliced.weights[-1][n], whole.weights[-1][n]) for n in parts)


def test_two_trainings_are_equal_bit_for_bit(data):
    first, second = (train(data)[1].weights[-1] for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_first_weights_are_those_that_the_space_draws_for_its_largest_layers(data):
    _, recorder = train(data)
    # 8 outputs x 3 x 3; the deviation of PyTorch's own first weights would be 1 / sqrt(3 x 72).
    weight = recorder.weights[0]["conv.weight"]
    assert weight.std().item() == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.1)


def test_a_trained_supernet_at_a_path_is_the_frozen_path(data):
    supernet, _ = train(data)
    supernet.eval()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for path in PRIOR.space.decode(PRIOR.space.enumerate()):
        subnet = extract_subnet(supernet, path)
        set_path(choice_units(supernet), path)
        with torch.no_grad():
            torch.testing.assert_close(supernet(images), subnet(images), rtol=0, atol=1e-6)


def test_a_training_without_a_relu_ends_at_its_first_batch(data):
    with pytest.raises(QuantizationError, match=r"reaches down to -.* Put a ReLU before it"):
        train(data, space=Small(with_relu=False))
    train(data, space=Small(with_relu=True))
