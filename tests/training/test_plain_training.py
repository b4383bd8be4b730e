"""Without a technique, 50 steps give the weights of a loop that knows none, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from nni.nas.space import RawFormatModelSpace
from torch import nn
from torch.nn import functional

from nni_spos.data import open_data
from nni_spos.mutables import ActiveSlices
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.training_settings import RetrainSettings, SupernetSettings
from nni_spos.supernet import SinglePathOneShot
from nni_spos.training import build_evaluator, training_session
from nni_spos.training.optimizer import SlicedSGD

STEPS, BATCH = 50, 10
COMMON = {"steps": STEPS, "batch_size": BATCH, "learning_rate": 0.2, "warmup_steps": 5, "seed": 3}


class Space(ModelSpace):
    """A unit of layers to choose from, and a layer whose channels are chosen."""

    def __init__(self):
        super().__init__()
        import nni

        width = nni.choice("width", [2, 4])
        self.unit = LayerChoice(
            {"k1": nn.Conv2d(1, 3, 1), "k3": nn.Conv2d(1, 3, 3, padding=1)}, label="unit"
        )
        self.norm = nn.BatchNorm2d(3)
        self.conv = MutableConv2d(3, width, 3, stride=2)
        self.dropout = nn.Dropout(0.2)
        self.classifier = MutableLinear(width, 10)

    def forward(self, x):
        x = functional.relu(self.conv(functional.relu(self.norm(self.unit(x)))))
        return self.classifier(self.dropout(x.mean((2, 3))))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(144, 10),
    )  # fmt: skip


def supernet() -> ModelSpace:
    torch.manual_seed(0)
    return SinglePathOneShot().mutate_model(Space())


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))


def loop(model, settings, data, optimizer, before_step) -> dict[str, torch.Tensor]:
    """Train as section 4 of the paper says, without Lightning."""
    batches = data.train_loader(BATCH, settings.seed)
    model.train()
    step = 0
    while step < STEPS:
        batches.sampler.set_epoch(step // len(batches))
        for images, labels in batches:
            if step == STEPS:
                break
            words = np.random.SeedSequence([settings.seed, step, 0])  # of dropout, by step and rank
            torch.manual_seed(int(words.generate_state(1, np.uint64)[0]))
            before_step(step)
            factor = (1 - step / STEPS) * min(1.0, (step + 1) / settings.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * factor
            optimizer.zero_grad()
            logits = model(images.to(memory_format=torch.channels_last))
            functional.cross_entropy(logits, labels, label_smoothing=0.1).backward()
            optimizer.step()
            step += 1
    return model.state_dict()


def groups(model):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": decayed, "weight_decay": 4e-5}, {"params": others, "weight_decay": 0.0}]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_retraining(data):
    settings = RetrainSettings(**COMMON)
    found, expected = network(), network()
    with training_session():
        build_evaluator(settings, data, layout=torch.channels_last).evaluate(found)
    expected.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(groups(expected), lr=0.1, momentum=0.9)
    before = {name: tensor.clone() for name, tensor in expected.state_dict().items()}
    weights = loop(expected, settings, data, optimizer, lambda step: None)
    assert_equal(found.state_dict(), weights)
    assert not torch.equal(weights["0.weight"], before["0.weight"])


def test_a_supernet(data):
    settings = SupernetSettings(**COMMON)
    found, expected = supernet(), supernet()
    prior = UniformPrior(PathSpace.from_model_space(Space()), seed=1)
    evaluator = build_evaluator(settings, data, layout=torch.channels_last)
    with training_session():
        SinglePathOneShot(prior)(
            RawFormatModelSpace.from_model(found, evaluator), SequentialExecutionEngine()
        )
    expected.to(memory_format=torch.channels_last)
    slices = ActiveSlices(expected)
    optimizer = SlicedSGD(groups(expected), lr=0.1, momentum=0.9, slices=slices)
    units = [x for x in expected.modules() if hasattr(x, "resample")]

    def sample(step):
        for unit in units:
            unit.resample(memo=prior.path(step))

    assert_equal(found.state_dict(), loop(expected, settings, data, optimizer, sample))
