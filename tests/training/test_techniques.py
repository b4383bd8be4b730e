"""What each training technique does to a step, beside the same training without it."""

from __future__ import annotations

import dataclasses
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nni_spos.data import open_data
from nni_spos.errors import RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.techniques import RecipePlace, TechniqueSettings, technique_keys
from nni_spos.recipe.training_settings import RetrainSettings, SupernetSettings
from nni_spos.scoring.evaluation import score
from nni_spos.tasks.base import Figure
from nni_spos.tasks.classification import Classification
from nni_spos.tasks.multilabel import MultiLabel
from nni_spos.tasks.regression import Regression
from nni_spos.tasks.segmentation import Segmentation
from nni_spos.training import build_evaluator, training_session
from nni_spos.training.composed import build_techniques
from nni_spos.training.curves import axis_title
from nni_spos.training.stopping import validate

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, 2, 1, 0])
SPEC = DatasetSpec("x", 3, 3, 8, 8, (0.5,) * 3, (0.25,) * 3, "none", 1.0)


def made(cls=RetrainSettings, spec=SPEC, place=None, task=None, **keys):
    """Techniques as a recipe's section with these keys has them."""
    owners = {key: name for key, (name, _) in technique_keys().items()}
    asked: dict[str, dict] = {}
    for key, value in keys.items():
        asked.setdefault(owners[key], {})[key] = value
    place = place or RecipePlace()
    found = tuple(TechniqueSettings(name, x, place) for name, x in asked.items())
    return build_techniques(cls(epochs=1, techniques=found, learning_rate=0.2), spec, task)


def only(**keys):
    (technique,) = made(**keys)
    return technique


def cross_entropy(outputs, targets):
    return functional.cross_entropy(outputs, targets)


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", image_size=8, num_train=60, num_validation=20))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, 10)

    def forward(self, x):
        return self.classifier(functional.relu(self.norm(self.conv(x))).mean((2, 3)))


def fit(data, network=None, **settings):
    network = Net() if network is None else network
    keys = {key: settings.pop(key) for key in list(settings) if key in technique_keys()}
    found = ()
    if keys:
        owners = {key: name for key, (name, _) in technique_keys().items()}
        asked: dict[str, dict] = {}
        for key, value in keys.items():
            asked.setdefault(owners[key], {})[key] = value
        found = tuple(TechniqueSettings(name, x) for name, x in asked.items())
    settings = RetrainSettings(**{"epochs": 1, "batch_size": 20, **settings}, techniques=found)
    with training_session():
        evaluator = build_evaluator(settings, data)
        evaluator.evaluate(network)
    return network, evaluator


# What is off


@pytest.mark.parametrize(
    "keys", [{"mixup": 0.0}, {"model_ema": False}, {"opt": "sgd"}, {"accumulate": 1}, {"kd": None}]
)
def test_what_is_off_is_not_made(keys):
    assert not list(made(**keys))


# Optimizers


def test_momentum_and_decay_are_those_of_the_section():
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": 0.3, "weight_decay": 0.0}]
    found = only(opt="RMSprop", opt_eps=1e-3).optimizer(groups, nn.Linear(1, 1))
    assert isinstance(found, torch.optim.RMSprop)
    assert found.defaults["momentum"] == 0.9
    assert found.param_groups[0] | {"params": None} == found.param_groups[0] | {
        "params": None, "lr": 0.3, "eps": 1e-3, "weight_decay": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"opt": "adamww"}, "opt: unknown optimizer 'adamww'; did you mean 'adamw'? Optimizers: "),
        ({"opt": "lbfgs"}, "opt: lbfgs computes the loss several times"),
        ({"opt": "adamw", "opt_kwargs": {"amsgrat": True}}, "did you mean 'amsgrad'"),
        ({"opt": "adamw", "opt_kwargs": {"lr": 1}}, "lr is the section's learning_rate"),
        ({"opt": "sgd", "opt_betas": [0.9, 0.9]}, "unknown argument 'betas'"),
        ({"opt": "adamw", "opt_betas": [0.9]}, "opt: adamw refuses"),
        ({"aa": "trivial", "spec": dataclasses.replace(SPEC, channels=4)}, "of 4 channels and 8"),
        ({"aa": "trivial", "spec": dataclasses.replace(SPEC, bits=16)}, "3 channels and 16 bits"),
        ({"aa": "trivial", "spec": dataclasses.replace(SPEC, is_prepared=True)}, "are prepared"),
        ({"aa": "trivial", "spec": dataclasses.replace(SPEC, target="mask")}, "kind 'mask'"),
        ({"mixup": 0.1, "spec": dataclasses.replace(SPEC, target="values")},
         "mixup and cutmix: does not know targets of the kind 'values'"),
        ({"kd": "largest", "cls": SupernetSettings}, "kd: largest is for retrain"),
        ({"early_stopping": 2, "cls": SupernetSettings}, "not for this section. It goes into"),
        ({"early_stopping": 2, "early_stopping_monitor": "validation_top1", "task": Segmentation()},
         "early_stopping_monitor: unknown figure 'validation_top1'; did you mean "
         "'validation_miou'? Figures: validation_loss, "
         "validation_miou, validation_pixel_accuracy."),
        ({"early_stopping": 2, "early_stopping_monitor": "validation_lose"},
         "did you mean 'validation_loss'?"),
        ({"logger": "wandb"}, "is not installed"),
    ],
)  # fmt: skip
def test_refusals(keys, words):
    with pytest.raises(RecipeError) as raised:
        made(**keys)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_optimizer_that_cannot_train_a_network_is_refused():
    technique = only(opt="adafactor")
    technique.check_network(Net())
    if hasattr(torch.optim, "Muon"):
        with pytest.raises(RecipeError, match="cannot train this network"):
            only(opt="muon").check_network(Net())


def test_adamw_trains_a_network_as_pytorch_does(data):
    """The same batches, without Lightning."""
    settings = {"learning_rate": 0.01, "weight_decay": 0.1, "label_smoothing": 0.0}
    found, _ = fit(data, opt="adamw", opt_betas=[0.8, 0.9], **settings)
    expected = Net().to(memory_format=torch.channels_last)
    decayed = [p for p in expected.parameters() if p.dim() > 1]
    others = [p for p in expected.parameters() if p.dim() <= 1]
    groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    for step, (images, targets) in enumerate(data.train_loader(20, 0)):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / 3)
        optimizer.zero_grad()
        cross_entropy(expected(images.to(memory_format=torch.channels_last)), targets).backward()
        optimizer.step()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, msg=name)


# Schedules


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"sched": "cosine"}, [1, 0.5 + math.sqrt(0.5) / 2, 0.5, 0.5 - math.sqrt(0.5) / 2, 0]),
        ({"sched": "step", "decay_epochs": 1}, [1, 1, 0.1, 0.1, 0.01]),
        ({"sched": "step", "decay_rate": 0.5}, [1, 1, 0.5, 0.25, 0.125]),
        ({"sched": "linear", "min_lr": 0.1}, [1, 0.875, 0.75, 0.625, 0.5]),
    ],
)
def test_schedules(keys, expected):
    schedule = made(**keys).schedule(4, 2)
    assert [schedule(step) for step in range(5)] == pytest.approx(expected)


def test_a_schedule_counts_updates_where_gradients_accumulate():
    schedule = made(sched="step", decay_epochs=1, accumulate=2).schedule(4, 3)
    assert [schedule(step) for step in range(4)] == pytest.approx([1, 1, 0.1, 0.1])


# Accumulation


def test_two_half_batches_make_the_step_of_a_whole_one(data):
    class Plain(Net):
        def forward(self, x):
            return self.classifier(functional.relu(self.conv(x)).mean((2, 3)))

    settings = {"learning_rate": 0.5, "channels_last": False}
    whole, _ = fit(data, Plain(), batch_size=60, **settings)
    parts, evaluator = fit(data, Plain(), batch_size=30, accumulate=2, **settings)
    assert evaluator.trainer.global_step == 1
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, msg=name)


# Averaged weights


def test_the_average_of_the_weights_is_the_result():
    technique = only(model_ema=True, model_ema_decay=0.75, model_ema_warmup=False)
    network = nn.BatchNorm1d(2)
    technique.begin(network, None)
    states = []
    for step in (1, 2, 3):
        with torch.no_grad():
            network.weight += step
            network.running_mean += 10 * step
            network.num_batches_tracked += 1
        technique.after_step(network, step)
        states.append(float(network.weight[0]))
    technique.end(network)
    expected = 1.0
    for value in states:
        expected = 0.75 * expected + 0.25 * value
    assert network.weight.tolist() == pytest.approx([expected] * 2)
    assert network.running_mean.tolist() == pytest.approx([10 * (expected - 1)] * 2)
    assert int(network.num_batches_tracked) == 3


def test_the_average_soon_forgets_the_initial_weights():
    technique = only(model_ema=True)
    assert technique.decay(1) == pytest.approx(1 - 2 ** (-2 / 3))
    assert technique.decay(10**9) == 0.9998
    assert only(model_ema=True, model_ema_warmup=False).decay(1) == 0.9998


# Mixing

NEIGHBOURS = [1, 0, 3, 2, 5, 4]


def test_parts_of_a_batch_are_mixed_as_the_whole():
    technique = only(mixup=0.4)
    whole = technique.batch(IMAGES, TARGETS, 3)
    parts = [technique.batch(IMAGES[part], TARGETS[part], 3) for part in ([0, 1], [2, 3, 4, 5])]
    assert torch.equal(whole, torch.cat(parts))
    odd = technique.batch(IMAGES[:3], TARGETS[:3], 3)
    assert torch.equal(odd, torch.cat([whole[:2], IMAGES[2:3]]))


def test_mixup_is_cross_entropy_with_mixed_targets():
    technique = only(mixup=0.4)
    mixed = technique.batch(IMAGES, TARGETS, 3)
    share = technique._share
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * IMAGES + (1 - share) * IMAGES[NEIGHBOURS])
    outputs = mixed.mean((2, 3))
    soft = share * functional.one_hot(TARGETS, 3) + (1 - share) * functional.one_hot(
        TARGETS[NEIGHBOURS], 3
    )
    torch.testing.assert_close(
        technique.loss(cross_entropy, outputs, TARGETS), cross_entropy(outputs, soft)
    )


def test_cutmix_replaces_the_area_that_it_says():
    technique = only(cutmix=1.0)
    for step in range(20):
        mixed = technique.batch(IMAGES, TARGETS, step)
        is_other = (mixed != IMAGES).all(1)
        assert float(is_other.float().mean()) == pytest.approx(1 - technique._share)
        assert torch.equal(mixed, torch.where(is_other[:, None], IMAGES[NEIGHBOURS], IMAGES))


def test_what_is_mixed_is_a_function_of_seed_and_step():
    shares = {}
    for _ in range(2):
        technique = only(mixup=0.4, cutmix=1.0, mixup_prob=0.7)
        for step in range(30):
            technique.batch(IMAGES, TARGETS, step)
            assert shares.setdefault(step, technique._share) == technique._share
    assert list(shares.values()).count(1.0) in range(3, 16)  # 30 % are left as they are
    assert len(set(shares.values())) > 10


# Augmentation and sampling


@pytest.mark.parametrize("keys", [{"aa": "rand-m9-mstd0.5"}, {"aa": "trivial"}, {"reprob": 0.5}])
def test_augmentation_is_a_function_of_each_image_and_not_of_its_batch(data, keys):
    augmentations = made(spec=data.spec, **keys).loader_options()["augmentations"]

    def batches(size):
        torch.manual_seed(size)  # which generators are in which state does not matter
        loader = data.train_loader(size, seed=1, augmentations=augmentations)
        loader.sampler.set_epoch(2)
        state = torch.get_rng_state()
        images = torch.cat([images for images, _ in loader])
        assert torch.equal(torch.get_rng_state(), state)
        return images

    whole = batches(60)
    assert torch.equal(whole, batches(20))
    loader = data.train_loader(60, seed=1)
    loader.sampler.set_epoch(2)
    plain = next(iter(loader))[0]
    changed = (plain != whole).flatten(1).any(1).float().mean()
    assert changed > 0.3
    assert not torch.equal(whole, _epoch(data, augmentations, 3))


def _epoch(data, augmentations, epoch):
    loader = data.train_loader(60, seed=1, augmentations=augmentations)
    loader.sampler.set_epoch(epoch)
    return next(iter(loader))[0]


def test_names_of_policies():
    wrong = (
        "random",
        "rand-m11",
        "rand-x3",
        "augmix",
        "rand-m9-inc0",
        "rand-m9-n0",
        "rand-m9-p1.5",
    )
    for name in wrong:
        with pytest.raises(RecipeError, match="aa: "):
            made(aa=name)
    for name in ("rand-m9", "rand-m7-n3-mstd0.5-inc1", "trivial"):
        assert only(aa=name)


@pytest.mark.parametrize(("part", "share"), [("", 0.5), ("-p0.2", 0.2), ("-p1", 1), ("-p0", 0)])
def test_an_operation_that_was_drawn_is_done_as_often_as_timm_does_it(part, share):
    (augmentation,) = made(aa=f"rand-m10-n1{part}").loader_options()["augmentations"]
    generator = np.random.default_rng(0)
    images = torch.from_numpy(generator.integers(256, size=(400, 3, 8, 8)).astype(np.uint8))
    changed = augmentation.pixels(images, np.arange(400, dtype=np.uint64)) != images
    found = float(changed.flatten(1).any(1).float().mean())
    # Of torchvision's 14 operations one, and on such images perhaps two, change nothing.
    assert 11 / 14 * share - 0.06 <= found <= share + 0.06


def test_classes_are_shown_equally_often():
    targets = np.repeat([0, 1, 2], [40, 7, 3])
    order = only(class_balanced=True).order(targets)
    seen = set()
    for epoch in range(6):
        positions = order(5, epoch)
        assert positions.tolist() == order(5, epoch).tolist()
        assert len(positions) == 50
        assert sorted(np.bincount(targets[positions]).tolist()) == [16, 17, 17]
        assert np.bincount(positions[targets[positions] == 2])[47:].max() <= 6
        seen |= set(positions.tolist())
    assert len(seen) > 40
    assert order(5, 0).tolist() != order(5, 1).tolist() != order(6, 1).tolist()


def test_a_balanced_epoch_reaches_the_training(data):
    order = made(class_balanced=True, spec=data.spec).loader_options()["order"]
    loader = data.train_loader(20, 0, order=order)
    targets = torch.cat([targets for _, targets in loader])
    assert torch.bincount(targets).tolist() == [6] * 10


# Dropout and stochastic depth


def test_dropout_is_before_the_classifier_and_only_in_training():
    network, technique = Net(), only(drop=0.5)
    inputs = []
    technique.check_network(network)
    technique.begin(network, None)
    network.classifier.register_forward_hook(lambda layer, x, y: inputs.append(x[0]))
    images = torch.ones(64, 1, 4, 4)
    network(images)
    network.eval()
    network(images)
    share = (inputs[0] == 0).float().mean() - (inputs[1] == 0).float().mean()
    assert float(share) == pytest.approx(0.5, abs=0.3)
    assert share > 0
    technique.end(network)
    assert not network.classifier._forward_pre_hooks


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Identity()

    @property
    def residual_branch(self):
        return self.main

    def forward(self, x):
        return x + self.main(x)


def test_later_branches_are_dropped_more_often_and_the_mean_stays():
    network = nn.Sequential(Block(), Block(), Block())
    technique = only(drop_path=0.5)
    technique.check_network(network)
    technique.begin(network, None)
    torch.manual_seed(0)
    x = torch.ones(4000, 1)
    shares = []
    for block in network:
        y = block(x) - x
        shares.append(float((y == 0).float().mean()))
        assert float(y.mean()) == pytest.approx(1, abs=0.1)
    assert shares == pytest.approx([0, 0.25, 0.5], abs=0.03)
    assert torch.equal(network.eval()(x), 8 * x)
    technique.end(network.train())
    assert torch.equal(network(x), 8 * x)


@pytest.mark.parametrize(
    ("name", "branches", "places"), [("nasbench_macro", 10, 5), ("resnet_small", 6, 6)]
)
def test_spaces_name_their_branches(name, branches, places):
    from nni_spos.spaces import Form, build_space
    from nni_spos.training.techniques.drop_path import _branches

    sizes = {"num_classes": 10, "in_channels": 3, "input_size": 32}
    found = list(_branches(build_space(name, {}, Form.SUPERNET, **sizes)))
    assert len(found) == branches
    assert len({place for place, _ in found}) == places  # what a unit chooses among is at one


def test_a_network_without_branches_is_refused():
    with pytest.raises(RecipeError, match="no block of the network has a residual branch"):
        only(drop_path=0.1).check_network(Net())
    with pytest.raises(RecipeError, match="no linear layer"):
        only(drop=0.1).check_network(nn.Conv2d(1, 1, 1))


# Distillation


def test_the_loss_of_distillation(monkeypatch):
    technique = only(kd="teacher.pt", kd_temperature=2.0, kd_weight=0.25)
    teacher = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    from nni_spos.training.techniques.kd import _Teacher

    monkeypatch.setattr(technique, "_open", lambda: _Teacher(teacher))
    technique.begin(nn.Linear(1, 1), None)
    technique.batch(IMAGES, TARGETS, 0)
    outputs = torch.randn(6, 3, requires_grad=True)
    found = technique.loss(cross_entropy, outputs, TARGETS)
    wanted = (teacher(IMAGES) / 2).softmax(1)
    distance = (wanted * (wanted.log() - (outputs / 2).log_softmax(1))).sum(1).mean()
    expected = 0.75 * cross_entropy(outputs, TARGETS) + 0.25 * 4 * distance
    torch.testing.assert_close(found, expected)
    logged = technique.step_figures()
    torch.testing.assert_close(logged["loss"], cross_entropy(outputs.detach(), TARGETS))
    torch.testing.assert_close(logged["kd_loss"], 4 * distance.detach())
    assert not any(x.requires_grad for x in logged.values())


def test_the_loss_that_is_logged_is_that_of_the_targets_with_two_teachers():
    techniques = made(
        SupernetSettings, paths=2, inplace_distillation=True, kd="teacher.pt", kd_weight=0.25
    )
    names = [x.title for x in techniques]
    assert names.index("inplace_distillation") < names.index("kd")  # whose loss is around it
    for technique in techniques:
        if technique.title == "kd":
            technique._teacher, technique._images = lambda images: torch.eye(6)[:, :3], IMAGES
    for position in (0, 1):  # the path that teaches, and one that learns
        for technique in techniques:
            technique.begin_path({}, position)
        outputs = torch.randn(6, 3)
        techniques.loss(cross_entropy, outputs, TARGETS)
        logged = techniques.step_figures()
        torch.testing.assert_close(logged["loss"], cross_entropy(outputs, TARGETS))
    assert logged.keys() == {"loss", "kd_loss", "distillation_loss"}


@pytest.mark.parametrize(
    ("kd", "words"),
    [
        ("nowhere.pt", "there is no file"),
        ("torchvision:resnet51", "did you mean 'resnet50'"),
        ("torchvision:resnet18", "knows 1000 classes, the images have 3"),
    ],
)
def test_teachers_that_are_none(kd, words, tmp_path):
    technique = only(kd=kd, place=RecipePlace(tmp_path))
    with pytest.raises(RecipeError, match=words):
        technique.check_network(Net())


def test_a_teacher_of_torchvision_does_not_see_the_colours_turned_around(tmp_path):
    technique = only(kd="torchvision:resnet18", place=RecipePlace(tmp_path))
    turned = dataclasses.replace(SPEC, channel_order="bgr")
    technique.training = dataclasses.replace(technique.training, spec=turned)
    with pytest.raises(RecipeError, match=r"kd: resnet18 takes images in the order rgb, and"):
        technique.check_network(Net())


# The end


def test_a_training_ends_that_gains_nothing(data):
    settings = {"epochs": 9, "learning_rate": 0.0}
    _, evaluator = fit(data, early_stopping=2, early_stopping_min_delta=5.0, **settings)
    assert evaluator.trainer.current_epoch == 3
    assert {"validation_loss", "validation_top1"} <= set(evaluator.trainer.callback_metrics)


class Errors(Classification):
    """A task of a user's, with a figure that is better when it is lower."""

    @property
    def figures(self):
        return (*super().figures, Figure("error", is_better="lower"))

    def conclude(self, sums, num_images):
        found = super().conclude(sums, num_images)
        return {**found, "error": 1 - found["top1"] / 100}


@pytest.mark.parametrize(
    ("task", "monitor", "mode"),
    [
        (Classification(), "validation_loss", "min"),
        (Classification(topk=(1, 3)), "validation_top3", "max"),
        (Segmentation(), "validation_miou", "max"),
        (MultiLabel(), "validation_map", "max"),
        (Regression(), "validation_mae", "min"),
        (Regression(), "validation_r2", "max"),
        (Errors(), "validation_error", "min"),
    ],
)
def test_every_figure_of_a_task_can_be_watched(task, monitor, mode):
    technique = only(early_stopping=2, early_stopping_monitor=monitor, task=task)
    (callback,) = technique.callbacks()
    assert (callback.monitor, callback.mode, callback.patience) == (monitor, mode, 2)


def test_held_out_figures_are_those_of_the_search_with_the_loss_of_the_training(data):
    network, settings = Net().eval(), RetrainSettings(epochs=1, label_smoothing=0.2)
    batches = data.validation_batches(8)
    found = validate(network, batches, Errors(), settings)
    assert network.training
    expected = score(network, batches, task=Errors())
    smoothed = 0.0
    for images, targets in batches:
        outputs = network.eval()(images).detach()
        smoothed += len(targets) * float(
            functional.cross_entropy(outputs, targets, label_smoothing=0.2)
        )
    assert found["loss"] == pytest.approx(smoothed / batches.num_images)
    assert found["loss"] != pytest.approx(expected.loss)
    assert {**found, "loss": expected.loss} == pytest.approx(expected.figures)


def test_curves_of_held_out_figures_are_named_by_the_task():
    assert axis_title("validation_miou") == "held-out mean IoU (%)"
    assert axis_title("validation_my_figure") == "held-out my_figure"
    assert axis_title("learning_rate") == "learning rate"


# Loggers


def test_mlflow_gets_a_store_of_its_own_in_the_folder(tmp_path, monkeypatch):
    """With a stand-in for MLflow where that is not installed."""
    from pytorch_lightning import loggers

    asked = []
    stand_in = ModuleType("mlflow")
    stand_in.__spec__ = SimpleNamespace(name="mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    monkeypatch.setattr(loggers, "MLFlowLogger", lambda *a, **k: asked.append((a, k)))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    only(logger="mlflow", logger_project="cats").logger(tmp_path / "net" / "logs")
    only(logger="mlflow", logger_uri="http://127.0.0.1:5").logger(tmp_path / "net" / "logs")
    folder = (tmp_path / "net" / "logs").as_uri()
    assert asked[0] == (("cats", "net"), {"tracking_uri": folder})
    assert asked[1][1] == {"tracking_uri": "http://127.0.0.1:5"}


def test_mlflow_itself(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = only(logger="mlflow").logger(tmp_path / "net" / "logs")
    logger.log_metrics({"loss": 0.5}, step=2)
    logger.finalize("success")
    (file,) = (tmp_path / "net" / "logs").rglob("metrics/loss")
    assert file.read_text().split()[1:3] == ["0.5", "2"]


# Of a user's own

ONLY_FOR_SUPERNETS = """
from nni_spos.training.technique import SUPERNET, Technique

class Calm(Technique):
    sections = (SUPERNET,)
"""

RECIPE = """
output: output
space: {name: shufflenet_small}
data: {name: digits}
supernet: {epochs: 1, techniques: [calm:Calm], mixup: 0.2}
"""


def test_a_retraining_like_the_supernets_leaves_out_what_is_for_supernets_alone(tmp_path):
    (tmp_path / "calm.py").write_text(ONLY_FOR_SUPERNETS)
    file = tmp_path / "recipe.yml"
    file.write_text(RECIPE)
    recipe = load_recipe(file)
    assert [x.title for x in build_techniques(recipe.supernet, SPEC)] == [
        "mixup and cutmix", "technique"
    ]  # fmt: skip
    assert [x.title for x in build_techniques(recipe.retrain, SPEC)] == ["mixup and cutmix"]
    file.write_text(RECIPE + "retrain: {epochs: 1, techniques: [calm:Calm]}\n")
    with pytest.raises(RecipeError, match="retrain: technique is not for this section"):
        build_techniques(load_recipe(file).retrain, SPEC)
