"""Outputs that are not finite have no accuracy, and spoil that of no other path."""

import json
import math

import pytest
import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.data import open_data
from nni_spos.errors import CheckpointError, NotFiniteError
from nni_spos.files.tensors import save_tensors
from nni_spos.path import PathSpace
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.search_settings import EvaluationSettings
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths, score
from nni_spos.search.score_cache import ScoreCache
from nni_spos.search.scorer import PathScorer
from nni_spos.supernet import SinglePathOneShot, load_supernet, restore_supernet, save_supernet
from nni_spos.worker.service import evaluate

PREPROCESSING = {"image_size": 8}
SETTINGS = EvaluationSettings(recalibration_images=64, batch_size=64)


@pytest.fixture(scope="module")
def data():
    return open_data(DataSettings("digits", augmentation="none", num_validation=100))


class Space(ModelSpace):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        choices = {"conv": nn.Conv2d(8, 8, 3, 1, 1), "skip": nn.Identity(), "pool": nn.MaxPool2d(1)}
        self.a = LayerChoice(choices, label="a")
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.a(self.stem(x)).mean((2, 3)))


PATHS = [{"a": "conv"}, {"a": "skip"}, {"a": "pool"}]


@pytest.fixture(params=[math.nan, math.inf, -math.inf])
def broken(request):
    """A supernet with a weight of one choice that is not finite."""
    torch.manual_seed(0)
    supernet = SinglePathOneShot().mutate_model(Space())
    with torch.no_grad():
        supernet.a["conv"].weight[0, 0, 0, 0] = request.param
    return supernet


def figures(evaluation):
    return evaluation.top1, evaluation.top5, evaluation.loss


@pytest.mark.parametrize("recalibrate", [True, False])
def test_only_the_path_that_has_them_is_without_figures(broken, data, recalibrate):
    settings = EvaluationSettings(recalibrate, 64, 64)
    together = evaluate_paths(broken, PATHS, data, settings)
    alone = [evaluate_path(broken, path, data, settings) for path in PATHS]
    for found in (together, alone):
        assert all(map(math.isnan, figures(found[0])))
        assert all(math.isfinite(x) for one in found[1:] for x in figures(one))
    assert together[1].loss == pytest.approx(alone[1].loss, abs=1e-5)


class Divides(nn.Module):
    """Not a number for an image without light only."""

    def forward(self, x):
        brightness = x.flatten(1).mean(1, keepdim=True)
        return brightness / brightness + torch.arange(3.0)


@pytest.mark.parametrize("dark", [0, 1])
def test_one_image_is_enough(dark):
    images, labels = torch.ones(8, 1, 4, 4), torch.full((8,), 2)
    images[:dark] = 0
    found = score(Divides(), [(images[:5], labels[:5]), (images[5:], labels[5:])])
    assert math.isnan(found.top1) == math.isnan(found.loss) == bool(dark)
    assert dark or found.top1 == 100


def test_a_failure_is_no_score(broken, data, tmp_path):
    cache = ScoreCache(tmp_path / "scores.jsonl", PathSpace.from_model_space(broken))
    scorer = PathScorer(broken, data, SETTINGS, cache=cache)
    found = scorer.score_many(PATHS)
    assert math.isnan(found[0]["top1"])
    assert math.isnan(found[0]["log_likelihood"])
    assert [cache.get(path) is None for path in PATHS] == [True, False, False]
    assert "NaN" not in cache.file.read_text()


def test_a_worker_answers_with_the_reason(broken, data):
    answers = evaluate(PathScorer(broken, data, SETTINGS).score_many, PATHS, print)
    assert answers[0] == {
        "failed": "NotFiniteError: the outputs of the network are not finite: top1 = nan"
    }
    assert [list(answer) for answer in answers[1:]] == [["results"], ["results"]]
    json.dumps(answers, allow_nan=False)


def test_weights_that_are_not_finite_are_not_saved(broken, tmp_path):
    file = tmp_path / "supernet.pt"
    with pytest.raises(NotFiniteError, match=r"supernet\.pt: is not written, .*'a\.conv\.weight'"):
        save_supernet(file, broken, PREPROCESSING)
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        broken.a["conv"].weight[0, 0, 0, 0] = 1e30
    save_supernet(file, broken, PREPROCESSING)
    restore_supernet(broken, load_supernet(file))


def test_weights_that_are_not_finite_are_not_opened(broken, tmp_path):
    file = tmp_path / "supernet.pt"
    checkpoint = {
        "supernet_version": 1,
        "space": PathSpace.from_model_space(broken).to_search_space(),
        "weights": broken.state_dict(),
        "preprocessing": PREPROCESSING,
    }
    save_tensors(file, checkpoint)
    torch.manual_seed(1)
    supernet = SinglePathOneShot().mutate_model(Space())
    before = {name: x.clone() for name, x in supernet.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"weight 'a\.conv\.weight' is not finite") as raised:
        restore_supernet(supernet, load_supernet(file))
    assert "\n" not in str(raised.value)
    assert all(torch.equal(x, before[name]) for name, x in supernet.state_dict().items())


def test_a_buffer_may_be_infinite(tmp_path):
    supernet = SinglePathOneShot().mutate_model(Space())
    supernet.register_buffer("mask", torch.full((2, 2), -math.inf))
    save_supernet(tmp_path / "supernet.pt", supernet, PREPROCESSING)
    restore_supernet(supernet, load_supernet(tmp_path / "supernet.pt"))
