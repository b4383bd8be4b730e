"""Single-path training on NNI's one-shot API."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from nni.nas.evaluator.pytorch import Classification, ClassificationModule, DataLoader
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import RangeProfilerFilter
from nni.nas.profiler.pytorch.flops import FlopsProfiler
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.utils.data import TensorDataset

from nni_spos.errors import InfeasibleError, RecipeError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables import MutableConv2d, channel_choice
from nni_spos.path import PathSpace
from nni_spos.priors import FilteredPrior, UniformPrior
from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.supernet import SinglePathModule, SinglePathOneShot

ARGUMENTS = {"num_classes": 3, "input_size": 8, "in_channels": 1, "stem_stride": 1,
             "stem_channels": 4, "stage_repeats": (1, 2), "stage_channels": (8, 16),
             "last_channels": 16}  # fmt: skip
STEPS = 6


def train(folder, prior=None, seen=None, **kwargs):
    torch.manual_seed(0)
    space = ShuffleNetV2Space(**ARGUMENTS)
    images = TensorDataset(torch.randn(12, 1, 8, 8), torch.arange(12) % 3)
    loader = DataLoader(images, batch_size=4)
    evaluator = Classification(
        optimizer=_momentum_sgd, learning_rate=0.1, weight_decay=0.1, num_classes=3,
        train_dataloaders=loader, val_dataloaders=loader, max_steps=STEPS, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0,
        default_root_dir=folder,
    )  # fmt: skip
    strategy = SinglePathOneShot(prior, **kwargs)
    engine = SequentialExecutionEngine()
    strategy.initialize(RawFormatModelSpace.from_model(space, evaluator), engine)
    if seen is not None:
        module = strategy.oneshot_module
        use = module.use
        module.use = lambda path: seen.append(use(path)) or seen[-1]
    strategy.run()
    return strategy.supernet


def _momentum_sgd(parameters, lr, weight_decay):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)


def test_the_path_of_a_step_is_the_priors(tmp_path):
    prior = UniformPrior(PathSpace.from_model_space(ShuffleNetV2Space(**ARGUMENTS)), seed=3)
    seen: list[dict] = []
    train(tmp_path, prior, seen)
    assert seen == [prior.path(step) for step in range(STEPS)]
    assert len({tuple(path.values()) for path in seen}) > 1


def test_a_module_that_had_its_model_before_is_resampled_too():
    space = ShuffleNetV2Space(**ARGUMENTS)
    prior = UniformPrior(PathSpace.from_model_space(space), seed=3)
    SinglePathOneShot().mutate_model(space)
    inner = ClassificationModule(num_classes=3)
    inner.set_model(space)
    module = SinglePathModule(inner, prior)
    module.trainer = type("Trainer", (), {"global_step": 5})()
    assert module.resample() == prior.path(5)
    module.eval()
    assert module(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_two_runs_are_equal_bit_for_bit(tmp_path):
    first, second = (train(tmp_path).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_unsampled_weights_are_untouched(tmp_path):
    space = PathSpace.from_model_space(ShuffleNetV2Space(**ARGUMENTS))
    prior = UniformPrior(space, seed=3)
    torch.manual_seed(0)
    before = ShuffleNetV2Space(**ARGUMENTS).state_dict()
    after = train(tmp_path, prior).state_dict()
    sampled = {(label, c) for step in range(STEPS) for label, c in prior.path(step).items()}
    never = 0
    for i, label in enumerate(space):
        for choice in space[label]:
            convolutions = [
                name for name in before
                if name.startswith(f"features.{i}.{choice}.") and before[name].dim() == 4
            ]  # fmt: skip
            same = all(torch.equal(before[name], after[name]) for name in convolutions)
            assert same == ((label, choice) not in sampled), (label, choice)
            never += same
    assert never > 0


def test_the_prior_of_another_space_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="another space"):
        train(tmp_path, UniformPrior(PathSpace({"layer_1": ["k3", "k5"]})))
    assert isinstance(train(tmp_path), nn.Module)


@pytest.mark.parametrize("form", ["object", "dict", "function"])
def test_filters_of_nni_work(tmp_path, form):
    profiler = FlopsProfiler(ShuffleNetV2Space(**ARGUMENTS), torch.zeros(1, 1, 8, 8))
    prior = UniformPrior(PathSpace.from_model_space(ShuffleNetV2Space(**ARGUMENTS)), seed=3)
    costs = [profiler.profile(prior.path(step)) for step in range(200)]
    limit = sorted(costs)[60]
    filters = {
        "object": RangeProfilerFilter(profiler, max=limit),
        "dict": {"profiler": profiler, "max": limit},
        "function": lambda path: profiler.profile(path) <= limit,
    }
    seen: list[dict] = []
    train(tmp_path, prior, seen, filter=filters[form])
    passing = [prior.path(step) for step in range(200) if costs[step] <= limit]
    assert seen == passing[:STEPS]


def test_a_filter_that_nothing_passes_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(FilteredPrior, "MAX_DRAWS_PER_PATH", 100)
    with pytest.raises(InfeasibleError, match=r"the filter let 0 of \d+ random paths pass"):
        train(tmp_path, filter=lambda path: False)


@pytest.mark.spawn
@pytest.mark.parametrize("first", ["nni.nas.strategy", "nni.nas.oneshot.pytorch", "math"])
def test_it_is_nnis_one_shot_strategy_whatever_is_imported_first(first):
    code = (
        f"import {first}; from nni_spos.supernet import SinglePathOneShot; "
        "from nni.nas.oneshot.pytorch.strategy import OneShotStrategy; "
        "assert issubclass(SinglePathOneShot, OneShotStrategy)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


class UsedTwice(ModelSpace):
    """One layer under two names, one of them in another module."""

    def __init__(self):
        super().__init__()
        width = channel_choice("width", 8, scales=[0.5, 1])
        self.first = MutableConv2d(8, width, 1)
        self.back = nn.Sequential(MutableConv2d(width, 8, 1))
        self.last = nn.Sequential(self.first)

    def forward(self, x):
        return self.last(self.back(self.first(x)))


def test_a_layer_that_a_space_uses_twice_stays_one_layer():
    supernet = SinglePathOneShot().mutate_model(UsedTwice()).eval()
    assert supernet.last[0] is supernet.first
    for width in (4, 8):
        for unit in (supernet.first, supernet.back[0]):
            unit.resample(memo={"width": width})
        x = torch.randn(2, 8, 3, 3)
        assert supernet(x).shape == (2, width, 3, 3)
        alone = extract_subnet(supernet, {"width": width})
        assert torch.allclose(supernet(x), alone(x), atol=1e-6)
