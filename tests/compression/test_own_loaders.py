"""A network made smaller in Python, with loaders of one's own."""

import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, LightningModule
from pytorch_lightning import LightningModule as PlainModule
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import nni_spos as spos
from nni_spos.compression.own_training import evaluator_of, read_trainings
from nni_spos.errors import (
    ConstraintError,
    DataError,
    EvaluatorError,
    InfeasibleError,
    RecipeError,
    SpaceError,
)
from nni_spos.recipe.training_settings import SupernetSettings
from nni_spos.search.lightning_scorer import own_generators, seeded


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.one(x)))
        return self.fc(torch.relu(self.two(x)).mean((2, 3)))


def make_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval()


def make_images(number, seed):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(number) % 3
    images = torch.randn(number, 1, 8, 8, generator=generator)
    return images + classes.view(-1, 1, 1, 1), classes


TRAIN, VALIDATION, TEST = make_images(48, 0), make_images(36, 1), make_images(30, 2)
LIMITS = ["flops <= 50%"]
LEAST = {"population_size": 3, "num_generations": 1}


def loader(part, **options):
    return DataLoader(TensorDataset(*part), batch_size=12, **options)


def compress(network=None, train=None, validation=None, limits=LIMITS, **options):
    return spos.compress(
        network or make_network(),
        loader(TRAIN, shuffle=True) if train is None else train,
        loader(VALIDATION) if validation is None else validation,
        limits,
        **{"supernet": {"epochs": 0}, "search": LEAST, "progress": False, **options},
    )


def scores_of(network, part):
    """Score in plain PyTorch."""
    images, classes = part
    with torch.no_grad():
        outputs = network(images)
    return {
        "top1": 100 * float((outputs.argmax(1) == classes).float().mean()),
        "loss": float(functional.cross_entropy(outputs, classes)),
    }


def multiply_adds(network):
    """Count by hand: two convolutions at 6x6 and 4x4 pixels, and the classifier."""
    one, two, fc = network.one, network.two, network.fc
    first = 36 * 9 * one.in_channels * one.out_channels
    return first + 16 * 9 * two.in_channels * two.out_channels + fc.in_features * fc.out_features


def is_same(one, other):
    both = one.state_dict(), other.state_dict()
    return both[0].keys() == both[1].keys() and all(
        torch.equal(x, both[1][name]) for name, x in both[0].items()
    )


@pytest.mark.slow
def test_from_loaders_to_a_smaller_network():
    network = make_network()
    before = make_network()
    state = torch.get_rng_state()
    found = compress(
        network,
        supernet={"epochs": 1},
        retrain={"epochs": 2, "learning_rate": 0.1},
        test_loader=loader(TEST),
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert is_same(network, before)
    assert not network.training
    smaller = found.network
    assert type(smaller) is Net
    assert type(smaller.one) is nn.Conv2d
    assert not smaller.training
    assert smaller.one.out_channels == found.path["one.channels"]
    assert smaller.two.out_channels == found.path["two.channels"]
    assert found.original_costs["flops"] == multiply_adds(network)
    assert found.costs["flops"] == multiply_adds(smaller) <= multiply_adds(network) / 2
    assert found.costs["params"] == sum(x.numel() for x in smaller.parameters())
    for scores, scored in ((found.scores, smaller), (found.original_scores, network)):
        for name, value in scores_of(scored, TEST).items():
            assert scores[name] == pytest.approx(value, abs=1e-4)
    assert found.path in [x.path for x in found.search.candidates]
    lines = repr(found).splitlines()
    assert lines[0].split() == ["original", "result", "result", "/", "original"]
    assert lines[1].split()[:2] == ["multiply-adds", "42.096k"]
    assert any(line.startswith("test top-1") for line in lines)
    assert lines[-1] == "2 of 2 units became smaller"
    again = compress(
        supernet={"epochs": 1},
        retrain={"epochs": 2, "learning_rate": 0.1},
        test_loader=loader(TEST),
    )
    assert is_same(again.network, smaller)
    assert again.scores == found.scores
    assert not is_same(compress(seed=1, supernet={"epochs": 1}).network, smaller)


@pytest.mark.slow
def test_without_trainings_the_result_has_the_weights_that_were_given():
    network = make_network()
    found = compress(network, retrain={"epochs": 0}, choices={"channels": [0.5, 1.0]})
    space = spos.convert(network, TRAIN[0][:1], {"channels": [0.5, 1.0]})
    path = spos.extract_subnet(space, found.path).network
    assert torch.equal(found.network.two.weight, path.two.weight)
    norm, values = found.network.norm, path.one(TRAIN[0])
    # Recalibrated with the training images: the averages over its four batches.
    assert norm.running_mean == pytest.approx(values.mean((0, 2, 3)).detach(), abs=1e-5)
    assert not torch.equal(norm.running_mean, path.norm.running_mean)
    for name, value in scores_of(found.network, VALIDATION).items():
        assert found.scores[name] == pytest.approx(value, abs=1e-4)
    assert found.split == "validation"
    assert found.scores["top1"] == pytest.approx(found.search.best.metrics["top1"])


IN_CHANNELS_LAST = []
"""Of the feature maps of every run of such a network."""


class Watched(Net):
    """Notes in which memory format its last feature maps are."""

    def forward(self, x):
        x = self.features(torch.relu(self.two(torch.relu(self.norm(self.one(x))))))
        return self.fc(x.mean((2, 3)))

    def features(self, x):
        IN_CHANNELS_LAST.append(x.is_contiguous(memory_format=torch.channels_last))
        return x


class Viewed(Watched):
    """Fails in channels_last."""

    def features(self, x):
        return super().features(x).view(-1).view(x.shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Watched, Viewed])
def test_paths_are_scored_in_the_fastest_format_that_is_right(kind, recwarn):
    found = compress(kind().eval(), retrain={"epochs": 0})
    batches = len(loader(VALIDATION))
    *before, last = IN_CHANNELS_LAST[-3 * batches :: batches]
    assert not last  # the original, as it was given
    found.network(TRAIN[0])
    assert not IN_CHANNELS_LAST[-1]
    IN_CHANNELS_LAST.clear()
    assert any(before) == (kind is Watched)
    assert any("channels_last" in str(x.message) for x in recwarn) == (kind is Viewed)


@pytest.mark.slow
def test_channels_are_sorted_by_the_training_batches():
    choices = {"channels": [0.5, 1.0], "importance": "taylor"}
    options = {"train": loader(TRAIN), "retrain": {"epochs": 0}}
    found = compress(choices=choices, **options)
    space = spos.convert(make_network(), TRAIN[0][:1], choices, calibration=loader(TRAIN))
    path = spos.extract_subnet(space, found.path).network
    assert torch.equal(found.network.two.weight, path.two.weight)
    other = compress(choices={"channels": [0.5, 1.0]}, **options)
    assert not torch.equal(other.network.one.weight, found.network.one.weight)


@pytest.mark.slow
def test_the_result_is_the_supernets_path_after_fine_tuning():
    settings = {"supernet": {"epochs": 1}, "choices": {"channels": [0.5, 1.0]}}
    begun = compress(**settings, retrain={"epochs": 0})
    found = compress(**settings, retrain={"epochs": 2})
    assert begun.path == found.path
    trainings = read_trainings({"epochs": 1}, {"epochs": 2}, 0, None)
    loaders = loader(TRAIN, shuffle=True), loader(VALIDATION)
    with seeded(own_generators(loaders), 0):
        evaluator_of(trainings.finetune, None, *loaders).evaluate(begun.network)
    assert is_same(begun.network, found.network)
    assert found.scores["loss"] == pytest.approx(
        scores_of(begun.network.eval(), VALIDATION)["loss"]
    )


class Counting(LightningModule):
    """Batches are dicts, and what is logged is no accuracy."""

    def training_step(self, batch, index):
        return functional.cross_entropy(self.model(batch["image"]), batch["label"])

    def validation_step(self, batch, index):
        loss = functional.cross_entropy(self.model(batch["image"]), batch["label"])
        self.log("minus_loss", -loss)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


class Dicts(torch.utils.data.Dataset):
    def __init__(self, part):
        self.images, self.labels = part

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


@pytest.mark.slow
def test_a_module_of_ones_own_trains_and_scores(capsys):
    module = Counting()
    found = compress(
        train=DataLoader(Dicts(TRAIN), batch_size=12),
        validation=DataLoader(Dicts(VALIDATION), batch_size=12),
        module=module,
        objective="minus_loss",
        example_inputs=TRAIN[0][:1],
        supernet={"epochs": 1},
        retrain={"epochs": 1},
        progress=True,
    )
    loss = scores_of(found.network, VALIDATION)["loss"]
    assert found.scores == {"minus_loss": pytest.approx(-loss, abs=1e-5)}
    assert "validation minus_loss" in repr(found)
    assert getattr(module, "_model", None) is None
    shown = capsys.readouterr().err
    assert all(title in shown for title in ("supernet", "search", "finetune"))


class Untrained(LightningModule):
    """Would fail if it were used."""


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"limits": ["flops <= 1%"]}, InfeasibleError, "no path meets"),
        ({"limits": ["steps <= 3"]}, ConstraintError, "steps"),
        ({"network": Net()}, SpaceError, "training mode"),
        ({"supernet": {}}, RecipeError, "give either 'epochs' or 'steps'"),
        ({"supernet": 3}, RecipeError, "compress: supernet: must be a mapping"),
        (
            {"supernet": {"epochs": 1, "batch_size": 4}},
            RecipeError,
            "leave out 'batch_size': it is that of your loader",
        ),
        ({"supernet": {"epochs": 1, "mixup": 0.2}}, RecipeError, "leave out 'mixup'"),
        ({"supernet": {"epoch": 1}}, RecipeError, "did you mean 'epochs'"),
        ({"retrain": None}, RecipeError, "with 0 epochs the supernet's are no example"),
        ({"search": {"population": 3}}, RecipeError, "compress: search: unknown key 'population'"),
        ({"train": []}, DataError, "train_loader: has no batches"),
        ({"validation": 3}, DataError, "validation_loader: a int is no loader"),
        ({"train": iter([TRAIN])}, DataError, "can be gone through only once"),
        ({"train": [TRAIN[0]]}, DataError, "a batch must be (images, classes)"),
        ({"validation": [(VALIDATION[0], VALIDATION[1].float())]}, DataError, "torch.float32"),
        ({"module": PlainModule()}, EvaluatorError, "Derive it from nni.nas.evaluator.pytorch"),
        (
            {"module": Untrained(), "supernet": {"epochs": 1, "momentum": 0.5}},
            RecipeError,
            "leave out 'momentum': Untrained decides it",
        ),
        ({"choices": ["taylor"]}, RecipeError, "choices: must map keys to values"),
        (
            {"module": Untrained(), "choices": {"importance": "taylor"}},
            RecipeError,
            "taylor needs the loss, which only Untrained knows. Use l2 or batchnorm",
        ),
        (
            {"module": Untrained(), "train": [{"image": TRAIN[0]}]},
            DataError,
            "example_inputs: must be images",
        ),
    ],
)
def test_refuses_before_any_training(changes, error, message, monkeypatch):
    monkeypatch.setattr("nni_spos.compression.own_loaders._CompressionStages.train", None)
    with pytest.raises(error) as caught:
        compress(**{"retrain": {"epochs": 0}, **changes})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_are_those_of_the_command():
    trainings = read_trainings({"epochs": 3}, None, 7, None)
    assert trainings.supernet == SupernetSettings(
        epochs=3, learning_rate=0.02, batch_size=128, initial_weights="original", seed=7
    )
    assert (trainings.finetune.epochs, trainings.finetune.learning_rate) == (3, 0.02)
    assert read_trainings({"epochs": 3}, {"epochs": 0}, 7, None).finetune is None
