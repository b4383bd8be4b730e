"""A recipe's trained supernet as a function from paths to results."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from trained_recipes import write_trained, write_untrained

from nni_spos.data import open_data
from nni_spos.errors import CheckpointError, PathError
from nni_spos.scoring.evaluation import evaluate_path
from nni_spos.search import scorer as scoring
from nni_spos.search.scorer import PathScorer, open_scorer
from nni_spos.spaces import Form
from nni_spos.supernet import load_supernet, restore_supernet
from nni_spos.supernet.building import build_recipe_space

PATH = {"layer_1": "k3", "layer_2": "xcep", "layer_3": "k7"}
OTHER = {"layer_1": "k7", "layer_2": "k5", "layer_3": "k3"}


def test_a_path_has_the_score_of_the_saved_weights(tmp_path):
    recipe = write_trained(tmp_path)
    scorer = open_scorer(recipe)
    forward, backward = [scorer(PATH), scorer(OTHER)], [scorer(OTHER), scorer(PATH)]
    assert forward == backward[::-1]
    assert forward[0] != forward[1]

    supernet = build_recipe_space(recipe, Form.SUPERNET, seed=9)
    restore_supernet(supernet, load_supernet(recipe.checkpoint))
    expected = evaluate_path(supernet, PATH, open_data(recipe.data), recipe.evaluation)
    assert list(forward[0]) == ["top1", "top5", "loss", "log_likelihood"]
    assert all(type(value) is float for value in forward[0].values())
    assert forward[0]["top1"] == pytest.approx(expected.top1)
    assert forward[0]["loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert forward[0]["log_likelihood"] == -forward[0]["loss"]


def test_data_and_weights_are_opened_once(tmp_path, monkeypatch):
    recipe = write_trained(tmp_path)
    opened = []
    for name in ("open_data", "load_supernet"):
        original = getattr(scoring, name)
        monkeypatch.setattr(
            scoring, name, lambda *x, f=original, name=name, **y: opened.append(name) or f(*x, **y)
        )
    scorer = open_scorer(recipe)
    scorer(PATH)
    scorer(OTHER)
    assert sorted(opened) == ["load_supernet", "open_data"]


def test_freed_memory_is_kept(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(scoring, "keep_freed_memory", lambda: asked.append(True))
    recipe = write_trained(tmp_path)
    assert asked == []
    open_scorer(recipe)
    assert asked == [True]


def test_the_supernet_is_unchanged(tmp_path):
    scorer = open_scorer(write_trained(tmp_path))
    before = {name: tensor.clone() for name, tensor in scorer.supernet.state_dict().items()}
    scorer(PATH)
    for name, tensor in scorer.supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_and_images_have_the_recipes_memory_format(tmp_path, channels_last):
    scorer = open_scorer(write_trained(tmp_path, supernet={"channels_last": channels_last}))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    weights, images = set(), []

    def keep(module, arguments):
        if isinstance(module, nn.Conv2d):
            if module.in_channels > 1:  # with one channel, an image is in both formats
                images.append(arguments[0].is_contiguous(memory_format=layout))
            elif module.kernel_size == (3, 3):
                weights.add(module.weight.stride())

    with register_module_forward_pre_hook(keep):
        scorer(PATH)
    assert weights == {(9, 1, 3, 1) if channels_last else (9, 9, 3, 1)}
    assert sum(images) > len(images) / 2  # a unit's halves are slices, which are in neither


def test_the_format_makes_no_difference_to_the_score(tmp_path):
    recipe = write_trained(tmp_path)
    scorer = open_scorer(recipe)
    other = PathScorer(scorer.supernet, scorer.data, recipe.evaluation, channels_last=False)
    assert math.isclose(other(PATH)["loss"], scorer(PATH)["loss"], rel_tol=1e-5)


def test_without_a_checkpoint_the_error_says_what_to_do(tmp_path):
    recipe = write_untrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"supernet\.pt: .*nni-spos train RECIPE"):
        open_scorer(recipe)


def test_other_images_and_other_layers_are_refused(tmp_path):
    write_trained(tmp_path)
    recipe = write_untrained(tmp_path, data={"num_validation": 50})
    with pytest.raises(CheckpointError, match=r"supernet\.pt: .*num_validation is 60"):
        open_scorer(recipe)
    recipe = write_untrained(tmp_path, space={"last_channels": 32})
    with pytest.raises(CheckpointError, match=r"supernet\.pt: the checkpoint .*other layers"):
        open_scorer(recipe)
    assert open_scorer(write_untrained(tmp_path, data={"num_train": 90}))(PATH)


def test_a_path_of_another_space_is_refused(tmp_path):
    with pytest.raises(PathError, match="'k9' is not a choice"):
        open_scorer(write_trained(tmp_path))({**PATH, "layer_1": "k9"})
