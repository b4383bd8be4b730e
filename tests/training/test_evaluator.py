"""Lightning gets what a recipe says, and a supernet's unsampled weights stay as they are."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import Callback

from nni_spos.data import open_data
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.spaces import ShuffleNetV2Space
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training import build_evaluator, evaluator, training_session
from nni_spos.training.callbacks import SeededSteps
from nni_spos.training.evaluator import choose_precision

SPACE = {"num_classes": 10, "input_size": 8, "in_channels": 1, "stem_stride": 1,
         "stem_channels": 4, "stage_repeats": (1, 2), "stage_channels": (8, 16),
         "last_channels": 16}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 3}, {"max_epochs": 3, "max_steps": -1, "gradient_clip_val": None}),
        ({"steps": 5, "gradient_clip": 2.0}, {"max_epochs": -1, "max_steps": 5,
                                              "gradient_clip_val": 2.0}),
        ({"epochs": 1, "precision": "bf16-mixed"}, {"precision": "bf16-mixed"}),
    ],
)  # fmt: skip
def test_trainer(data, settings, expected):
    trainer = build_evaluator(TrainSettings(batch_size=20, **settings), data).trainer
    assert {name: getattr(trainer, name) for name in expected} == expected


def test_mixed_precision_is_the_default_on_cuda_only(monkeypatch):
    for available, expected in ((True, "16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=available: answer)
        assert choose_precision("auto") == expected
        assert choose_precision("bf16-mixed") == "bf16-mixed"


def test_nothing_is_written_without_a_folder(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(data, TrainSettings(steps=1, batch_size=20), None)
    assert list(tmp_path.iterdir()) == []


def test_clipped_gradients(data):
    weights = [
        train(
            data, TrainSettings(steps=1, batch_size=20, weight_decay=0.0, gradient_clip=clip), None
        )
        for clip in (None, 1e-9)
    ]
    torch.manual_seed(0)
    before = ShuffleNetV2Space(**SPACE, affine=False).state_dict()["classifier.0.weight"]
    moved = [(w[0]["classifier.0.weight"] - before).abs().max() for w in weights]
    assert moved[0] > 1e-4 > 1e-7 > moved[1]


class Recorder(Callback):
    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        state = pl_module.model.state_dict()
        self.weights.append({name: tensor.clone() for name, tensor in state.items()})


def train(data, settings, prior):
    torch.manual_seed(0)
    space = ShuffleNetV2Space(**SPACE, affine=False)
    evaluator = build_evaluator(settings, data)
    recorder = Recorder()
    evaluator.trainer.callbacks.append(recorder)
    with training_session():
        SinglePathOneShot(prior)(
            RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine()
        )
    return recorder.weights


def test_a_step_leaves_weights_alone_that_earlier_steps_trained(data):
    space = PathSpace.from_model_space(ShuffleNetV2Space(**SPACE))
    prior = UniformPrior(space, seed=1)
    settings = TrainSettings(steps=8, batch_size=20, momentum=0.9, weight_decay=0.1)
    weights = train(data, settings, prior)
    trained, untouched = set(), 0
    for step, (before, after) in enumerate(itertools.pairwise(weights), start=1):
        trained |= set(prior.path(step - 1).items())
        path = prior.path(step)
        for i, label in enumerate(space):
            for choice in space[label]:
                names = [n for n in before if n.startswith(f"features.{i}.{choice}.")]
                same = all(torch.equal(before[name], after[name]) for name in names)
                assert same == (choice != path[label]), (step, label, choice)
                # Its momentum is not zero: only leaving it out leaves the weights alone.
                untouched += same and (label, choice) in trained
    assert untouched > 10


def test_freed_memory_is_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluator, "keep_freed_memory", lambda: asked.append(True))
    with training_session():
        assert asked == [True]


def test_a_step_is_seeded_on_the_cpu_and_on_its_device(monkeypatch):
    seeds = []
    module = SimpleNamespace(manual_seed=seeds.append)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)

    def draw(step, rank=0, device="cpu", seed=3):
        trainer = SimpleNamespace(global_step=step, global_rank=rank, accumulate_grad_batches=1)
        network = SimpleNamespace(device=torch.device(device))
        SeededSteps(seed).on_train_batch_start(trainer, network, None, 0)
        return torch.rand(1).item()

    drawn = [draw(0), draw(1), draw(0, rank=1), draw(0, seed=4)]
    assert len(set(drawn)) == 4
    assert draw(0) == drawn[0]
    assert seeds == []
    assert draw(0, device="meta") == drawn[0]
    assert seeds == [torch.initial_seed()]
