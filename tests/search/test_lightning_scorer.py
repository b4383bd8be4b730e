"""Scores by a user's own Lightning module, with batches of any form."""

import pytest
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, LightningModule, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning import LightningDataModule
from small_spaces import state_of
from torch import nn
from torch.nn import functional

import nni_spos as spos
from nni_spos.errors import EvaluatorError, PathError

PATH = {"layer": "k5"}


class Blocks(ModelSpace):
    """One choice between two convolutions with BatchNorm, and outputs of two classes."""

    def __init__(self, width=4):
        super().__init__()
        blocks = {
            f"k{size}": nn.Sequential(
                nn.Conv2d(1, width, size, padding=size // 2, bias=False), nn.BatchNorm2d(width)
            )
            for size in (3, 5)
        }
        self.layer = LayerChoice(blocks, label="layer")
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(functional.relu(self.layer(x)).mean((2, 3)))


class Brightness(torch.utils.data.Dataset):
    """Bright and dark images, as dicts."""

    def __init__(self, number, seed):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(number) % 2
        self.images = torch.randn(number, 1, 6, 6, generator=generator)
        self.images += 0.7 * self.labels.view(-1, 1, 1, 1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


class Classifier(LightningModule):
    def forward(self, x):
        return self.model(x)

    def training_step(self, batch, index):
        return functional.cross_entropy(self(batch["image"]), batch["label"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


class Scored(Classifier):
    def validation_step(self, batch, index):
        logits = self(batch["image"])
        self.log("loss", functional.cross_entropy(logits, batch["label"]))
        self.log("accuracy", (logits.argmax(1) == batch["label"]).float().mean())


TRAIN, VALIDATION = Brightness(48, 0), Brightness(40, 1)


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return Trainer(max_epochs=1, accelerator="cpu", **dict.fromkeys(quiet, False), **options)


def lightning(module=None, train=True, validation=True, **options):
    return Lightning(
        module or Scored(),
        trainer(),
        DataLoader(TRAIN, batch_size=12, **options) if train else None,
        DataLoader(VALIDATION, batch_size=16) if validation else None,
    )


def make_supernet():
    torch.manual_seed(0)
    return spos.SinglePathOneShot().mutate_model(Blocks())


def expected(supernet, path):
    """Recalibrate and score in plain PyTorch."""
    network = spos.extract_subnet(supernet, path).eval()
    norm = network.layer[1]
    outputs = network.layer[0](TRAIN.images)
    batches = outputs.split(12)
    norm.running_mean = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0).detach()
    norm.running_var = torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0).detach()
    logits = network(VALIDATION.images)
    return {
        "loss": functional.cross_entropy(logits, VALIDATION.labels).item(),
        "accuracy": (logits.argmax(1) == VALIDATION.labels).float().mean().item(),
    }


@pytest.mark.parametrize("choice", ["k3", "k5"])
def test_a_score_is_what_the_module_logs_for_the_paths_recalibrated_network(choice):
    supernet = make_supernet()
    before = state_of(supernet)
    scorer = spos.LightningScorer(supernet, lightning(), "accuracy")
    path = {"layer": choice}
    assert scorer(path) == pytest.approx(expected(supernet, path), abs=1e-6)
    network = scorer.network(path)
    assert network.layer[1].running_mean.abs().max() > 0.01
    assert not network.layer[1].training
    after = state_of(supernet)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_without_recalibration_a_path_has_the_supernets_statistics():
    supernet = make_supernet()
    scorer = spos.LightningScorer(supernet, lightning(), "loss", recalibration_batches=0)
    network = spos.extract_subnet(supernet, PATH).eval()
    logits = network(VALIDATION.images)
    loss = functional.cross_entropy(logits, VALIDATION.labels).item()
    assert scorer(PATH)["loss"] == pytest.approx(loss, abs=1e-6)
    assert torch.equal(scorer.network(PATH).layer[1].running_mean, torch.zeros(4))


def test_fewer_batches_give_other_statistics():
    supernet = make_supernet()
    one, all_ = (
        spos.LightningScorer(supernet, lightning(), "loss", recalibration_batches=count)(PATH)
        for count in (1, 100)
    )
    assert one["loss"] != all_["loss"]


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_each_path_sees_the_same_batches_however_they_are_shuffled(generator):
    evaluator = lightning(shuffle=True, generator=generator)
    scorer = spos.LightningScorer(make_supernet(), evaluator, "loss", recalibration_batches=1)
    first = scorer(PATH)
    state = torch.get_rng_state()
    scorer({"layer": "k3"})
    assert scorer(PATH) == first
    assert torch.equal(torch.get_rng_state(), state)
    another = spos.LightningScorer(
        scorer.supernet, evaluator, "loss", recalibration_batches=1, seed=1
    )
    assert another(PATH) != first


def test_a_data_module_gives_the_batches():
    class Data(LightningDataModule):
        def setup(self, stage):
            self.ready = True

        def train_dataloader(self):
            assert self.ready
            return DataLoader(TRAIN, batch_size=12)

        def val_dataloader(self):
            return DataLoader(VALIDATION, batch_size=16)

    supernet = make_supernet()
    scorer = spos.LightningScorer(
        supernet, Lightning(Scored(), trainer(), datamodule=Data()), "accuracy"
    )
    assert scorer(PATH) == pytest.approx(expected(supernet, PATH), abs=1e-6)


def test_the_module_that_trained_the_supernet_scores_it_and_keeps_its_network():
    space, evaluator = Blocks(), lightning()
    strategy = spos.SinglePathOneShot()
    strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
    assert evaluator.module.model is space
    assert set(spos.LightningScorer(space, evaluator, "loss")(PATH)) == {"loss", "accuracy"}
    assert evaluator.module.model is space
    # And it trains the network of a path, with a trainer of its own.
    network = spos.build_network(space, PATH)
    before = state_of(network)
    Lightning(
        evaluator.module, trainer(), evaluator.train_dataloaders, evaluator.val_dataloaders
    ).evaluate(network)
    assert not torch.equal(before["head.weight"], network.head.weight)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lightning(Classifier()), "Classifier has no validation_step"),
        (lambda: lightning(validation=False), "nothing to validate with"),
        (lambda: lightning(train=False), "nothing to recalibrate BatchNorm with"),
        (lambda: DataLoader(VALIDATION), "DataLoader cannot score. Give NNI's evaluator"),
    ],
)
def test_what_cannot_score_is_refused_at_once(make, message):
    with pytest.raises(EvaluatorError, match=message):
        spos.LightningScorer(make_supernet(), make(), "accuracy")


def test_without_training_batches_the_supernets_statistics_must_be_asked_for():
    evaluator = lightning(train=False)
    scorer = spos.LightningScorer(make_supernet(), evaluator, "loss", recalibration_batches=0)
    assert scorer(PATH)["loss"] > 0


def test_an_objective_that_is_not_logged_is_named():
    scorer = spos.LightningScorer(make_supernet(), lightning(), "acuracy")
    with pytest.raises(EvaluatorError, match="unknown logged value 'acuracy'; did you mean 'accur"):
        scorer(PATH)


def test_a_path_of_another_space_is_refused():
    scorer = spos.LightningScorer(make_supernet(), lightning(), "accuracy")
    with pytest.raises(PathError, match="'k7' is not a choice"):
        scorer({"layer": "k7"})


def test_a_search_takes_the_objective_from_it():
    supernet = make_supernet()
    scorer = spos.LightningScorer(supernet, lightning(), "accuracy")
    search = spos.search_paths(
        supernet, scorer, population_size=2, num_generations=1, progress=False
    )
    assert search.objective == "accuracy"
    scores = {path: expected(supernet, {"layer": path})["accuracy"] for path in ("k3", "k5")}
    assert search.best.metrics["accuracy"] == pytest.approx(max(scores.values()), abs=1e-6)


@pytest.mark.parametrize("kind", ["lightning", "function"])
def test_an_experiment_of_nnis_is_scored_by_it_or_by_any_function(kind):
    supernet = make_supernet()
    if kind == "lightning":
        scorer = spos.LightningScorer(supernet, lightning(), "accuracy")
        objective, scores = "accuracy", [expected(supernet, {"layer": x}) for x in ("k3", "k5")]
        best = max(x["accuracy"] for x in scores)
    else:
        scorer, objective, best = (lambda path: float(path["layer"] == "k5")), "top1", 1.0
    settings = {"objective": objective, "population_size": 2, "num_generations": 1}
    strategy = spos.EvolutionStrategy(**settings)
    evaluator = spos.SupernetEvaluator(supernet, scorer)
    strategy(RawFormatModelSpace.from_model(supernet, evaluator), SequentialExecutionEngine())
    assert len(strategy.search.candidates) == 2
    assert strategy.search.best.metrics[objective] == pytest.approx(best, abs=1e-6)


def test_a_loader_alone_scores_no_experiment():
    with pytest.raises(EvaluatorError, match="a DataLoader cannot score paths"):
        spos.SupernetEvaluator(make_supernet(), DataLoader(VALIDATION))
