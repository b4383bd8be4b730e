"""Trainings with techniques, from a recipe: interrupted, in several processes, with a teacher."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import trained_recipes
from trained_recipes import write_untrained

from nni_spos.errors import CheckpointError, RecipeError
from nni_spos.files.tensors import load_tensors
from nni_spos.recipe.output import training_curves, training_folder
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import retrain
from nni_spos.supernet import load_supernet
from nni_spos.supernet.building import build_recipe_costs
from nni_spos.supernet.training import train_supernet
from nni_spos.training import Start, last_checkpoint

PATH = {"layer_1": "k3", "layer_2": "k5", "layer_3": "xcep"}
SETTINGS = {"epochs": 2, "steps": None, "batch_size": 20, "learning_rate": 0.01}
ALL = {
    **SETTINGS, "opt": "adamw", "sched": "cosine", "model_ema": True, "mixup": 0.2, "cutmix": 1.0,
    "aa": "rand-m9-mstd0.5", "reprob": 0.3, "class_balanced": True, "drop": 0.1, "accumulate": 2,
    "logger": "csv",
}  # fmt: skip


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.slow
def test_a_retraining_goes_on_bit_for_bit(tmp_path):
    recipe = write_untrained(tmp_path, retrain={**ALL, "early_stopping": 2, "kd": "largest"})
    whole = retrain(recipe, PATH)
    folder = training_folder(recipe.files.retrained)
    first, last = sorted(folder.glob("step_*.ckpt"))
    teachers = sorted(recipe.files.teachers.glob("*.pt"))
    assert len(teachers) == 1
    before = teachers[0].read_bytes()
    cut = retrain(recipe, PATH, tmp_path / "cut.pt", first)
    # The last epoch was done, and the process ended before the network was written.
    finished = retrain(recipe, PATH, tmp_path / "finished.pt", last)
    for other in (cut, finished):
        assert_same(whole.network.state_dict(), other.network.state_dict())
    assert teachers[0].read_bytes() == before
    assert training_curves(folder).read_bytes()[:4] == b"\x89PNG"
    average = load_tensors(last)["callbacks"]["TechniqueHooks"]["model_ema"]["average"]
    assert_same(average, dict(whole.network.state_dict()))
    other = dataclasses.replace(recipe, retrain=dataclasses.replace(recipe.retrain, techniques=()))
    with pytest.raises(CheckpointError, match="techniques was"):
        retrain(other, PATH, tmp_path / "other.pt", first)


@pytest.mark.slow
def test_a_supernet_goes_on_bit_for_bit(tmp_path):
    sliced = {"name": "shufflenet_joint_small", "stem_channels": 4, "stage_repeats": [1, 2],
              "stage_channels": [16, 32], "last_channels": 16}  # fmt: skip
    recipe = write_untrained(tmp_path, supernet=ALL, space=sliced, data={"image_size": 16})
    train_supernet(recipe)
    whole = load_supernet(recipe.checkpoint).weights
    first, _ = sorted(training_folder(recipe.checkpoint).glob("step_*.ckpt"))
    recipe.checkpoint.unlink()
    train_supernet(recipe, first)
    assert_same(dict(whole), dict(load_supernet(recipe.checkpoint).weights))


@pytest.mark.slow
def test_a_quantized_supernet_goes_on_bit_for_bit(tmp_path, monkeypatch):
    space = {"name": "resnet_small", "bit_pairs": [[2, 2], [4, 4]], "stage_repeats": [1],
             "stage_channels": [8], "channel_scales": [0.5, 1.0]}  # fmt: skip
    keys = {**SETTINGS, "clip_quantile": {2: 0.97}, "clip_learning_rate_factor": 2.0}
    monkeypatch.setattr(trained_recipes, "TINY_SPACE", space)
    recipe = write_untrained(tmp_path, supernet=keys)
    train_supernet(recipe)
    whole = dict(load_supernet(recipe.checkpoint).weights)
    clips = {name: float(x) for name, x in whole.items() if ".clips." in name}
    assert all((5.5 < x < 6.5) == name.endswith(".4") for name, x in clips.items())
    first, _ = sorted(training_folder(recipe.checkpoint).glob("step_*.ckpt"))
    recipe.checkpoint.unlink()
    train_supernet(recipe, first)
    assert_same(whole, dict(load_supernet(recipe.checkpoint).weights))


@pytest.mark.slow
def test_a_supernet_of_several_paths_goes_on_bit_for_bit(tmp_path):
    sliced = {"name": "shufflenet_joint_small", "stem_channels": 4, "stage_repeats": [1, 2],
              "stage_channels": [16, 32], "last_channels": 16}  # fmt: skip
    keys = {**SETTINGS, "paths": 3, "sandwich": True, "inplace_distillation": True,
            "kd": "teacher.pt", "mixup": 0.2, "accumulate": 2, "drop": 0.1}  # fmt: skip
    teacher = write_untrained(tmp_path, space=sliced, data={"image_size": 16})
    path = build_recipe_costs(teacher)[1]["flops"].dearest()[1]
    retrain(teacher, path, tmp_path / "teacher.pt")
    recipe = write_untrained(tmp_path, supernet=keys, space=sliced, data={"image_size": 16})
    train_supernet(recipe)
    whole = load_supernet(recipe.checkpoint).weights
    first, _ = sorted(training_folder(recipe.checkpoint).glob("step_*.ckpt"))
    recipe.checkpoint.unlink()
    train_supernet(recipe, first)
    assert_same(dict(whole), dict(load_supernet(recipe.checkpoint).weights))


@pytest.mark.slow
def test_a_training_that_was_stopped_stays_stopped(tmp_path):
    keys = {"early_stopping": 1, "early_stopping_min_delta": 9.0, "epochs": 5}
    recipe = write_untrained(tmp_path, retrain={**SETTINGS, **keys})
    whole = retrain(recipe, PATH)
    last = last_checkpoint(training_folder(recipe.files.retrained))
    assert load_tensors(last)["epoch"] == 1
    again = retrain(recipe, PATH, tmp_path / "again.pt", last)
    assert_same(whole.network.state_dict(), again.network.state_dict())


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path):
    for keys, words in (
        ({"drop_path": 0.1}, "no block of the network has a residual branch"),
        ({"kd": "nowhere.pt"}, "there is no file"),
        ({"opt": "adamww"}, "did you mean 'adamw'"),
    ):
        recipe = write_untrained(tmp_path, retrain={**SETTINGS, **keys})
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(RecipeError, match=words):
            retrain(recipe, PATH, start=Start.OVERWRITE)
        left = [x for x in tmp_path.rglob("*") if x not in before and x.suffix != ".lock"]
        assert not left


@pytest.mark.slow
def test_a_teacher_of_another_data_set_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    teacher = write_untrained(tmp_path / "one", retrain={**SETTINGS, "epochs": 1})
    retrain(teacher, PATH)
    keys = {**SETTINGS, "epochs": 1, "kd": str(teacher.files.retrained)}
    alike = write_untrained(tmp_path / "two", retrain=keys)
    taught = retrain(alike, PATH).network.state_dict()
    plain = load_network(teacher.files.retrained).network.state_dict()
    assert any(not torch.equal(plain[name], tensor) for name, tensor in taught.items())
    other = write_untrained(tmp_path / "two", retrain=keys, data={"image_size": 16})
    with pytest.raises(RecipeError, match="takes images with image_size 8, here it is 16"):
        retrain(other, PATH, tmp_path / "other.pt")
