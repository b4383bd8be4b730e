"""Retraining a path from scratch, and when the test images are read."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
import yaml

from nni_spos.data import ImageData, loaders, open_data
from nni_spos.errors import CheckpointError, DataError, PathError, RecipeError
from nni_spos.modules.subnet import extract_subnet
from nni_spos.profilers import build_costs
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import retrain
from nni_spos.scoring.evaluation import score
from nni_spos.supernet import save_supernet
from nni_spos.supernet.building import build_recipe_supernet
from nni_spos.training import Start, exclusive

PATH = {"layer_1": "k5", "layer_2": "xcep", "layer_3": "k3"}


@pytest.fixture
def recipe(tmp_path):
    content = {
        "output": "runs",
        "space": {"name": "shufflenet_small", "stem_channels": 4, "stage_repeats": [1, 2],
                  "stage_channels": [8, 16], "last_channels": 16},
        "data": {"name": "digits", "num_train": 200, "num_validation": 60},
        "supernet": {"epochs": 1},
        "evaluation": {"batch_size": 100},
        "retrain": {"epochs": 2, "batch_size": 50, "learning_rate": 0.1},
    }  # fmt: skip
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
    return load_recipe(tmp_path / "recipe.yml")


def assert_equal(one, other):
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


def test_sizes_that_do_not_fit_end_before_anything_is_written(recipe):
    settings = dataclasses.replace(recipe.retrain, progressive_resizing=((16, 0.5),))
    with pytest.raises(RecipeError, match="must be smaller than the images, 16 pixels, got 16"):
        retrain(dataclasses.replace(recipe, retrain=settings), PATH)
    assert not recipe.output.exists()


@pytest.mark.parametrize("name", ["net", ".pt", "net.lock", "runs/supernet.pt"])
def test_names_that_leave_none_for_what_is_beside_the_network(recipe, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RecipeError, match=r"needs a suffix|is the file of the supernet"):
        retrain(recipe, PATH, Path(name), Start.OVERWRITE)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_networks_with_dots_in_their_names_do_not_wait_for_each_other(recipe, tmp_path):
    short = dataclasses.replace(recipe.retrain, epochs=1)
    recipe = dataclasses.replace(recipe, retrain=short)
    with exclusive(tmp_path / "net.1", timeout=0):
        assert retrain(recipe, PATH, tmp_path / "net.2.pt").test
        with pytest.raises(CheckpointError, match="another process is training here"):
            retrain(recipe, PATH, tmp_path / "net.1.pt")
    assert (tmp_path / "net.2.pt").is_file()
    assert (tmp_path / "net.2").is_dir()


@pytest.mark.slow
def test_the_saved_network_is_the_trained_one(recipe):
    trained = retrain(recipe, PATH)
    loaded = load_network(recipe.output / "retrained.pt")
    assert_equal(trained, loaded)
    assert loaded.path == PATH
    assert loaded.test == trained.test
    data = open_data(recipe.data)
    result = score(loaded.network, data.test_batches(100))
    assert result.to_json() == loaded.test
    assert result.num_images == 360
    tables = build_costs(loaded.space.build(), (1, 16, 16))
    assert loaded.costs == {name: table.price(PATH) for name, table in tables.items()}
    assert loaded.costs["params"] == sum(p.numel() for p in loaded.network.parameters())
    assert loaded.settings["epochs"] == 2
    assert loaded.preprocessing == data.preprocessing


@pytest.mark.slow
def test_fresh_weights_are_a_function_of_the_seed_and_resuming_is_exact(recipe, tmp_path):
    first = retrain(recipe, PATH, tmp_path / "a.pt")
    second = retrain(recipe, PATH, tmp_path / "b.pt")
    assert_equal(first, second)
    checkpoint = min((tmp_path / "b").glob("*.ckpt"))
    assert_equal(first, retrain(recipe, PATH, tmp_path / "b.pt", checkpoint))
    settings = dataclasses.replace(recipe.retrain, seed=1)
    other = retrain(dataclasses.replace(recipe, retrain=settings), PATH, tmp_path / "c.pt")
    with pytest.raises(AssertionError):
        assert_equal(first, other)


def test_only_the_last_line_reads_the_test_images(recipe, monkeypatch):
    events = []
    read = ImageData.test_batches

    def noticed(self, batch_size):
        events.append((recipe.output / "retrained.pt").exists())
        return read(self, batch_size)

    monkeypatch.setattr(ImageData, "test_batches", noticed)
    retrain(recipe, PATH)
    assert events == [True], "once, after the weights were saved"


@pytest.mark.slow
def test_missing_test_images_cost_no_training(recipe, monkeypatch):
    def missing(*_):
        raise DataError("digits: no test images.")

    with monkeypatch.context() as patched:
        patched.setattr(loaders, "open_test_set", missing)
        with pytest.raises(DataError, match="no test images"):
            retrain(recipe, PATH)
    saved = load_network(recipe.output / "retrained.pt")
    assert saved.test is None
    before = os.path.getmtime(max((recipe.output / "retrained").glob("*.ckpt")))
    trained = retrain(recipe, PATH, start=Start.RESUME)
    assert_equal(saved, trained)
    assert trained.test["num_images"] == 360
    assert os.path.getmtime(max((recipe.output / "retrained").glob("*.ckpt"))) == before
    with pytest.raises(CheckpointError, match="is there already"):
        retrain(recipe, PATH)


def test_a_path_of_another_space_is_refused_before_anything_is_written(recipe):
    for path in ({**PATH, "layer_1": "k9"}, {"layer_1": "k3"}, {**PATH, "layer_4": "k3"}):
        with pytest.raises(PathError):
            retrain(recipe, path)
    assert not recipe.output.exists()


@pytest.mark.slow
def test_another_path_does_not_go_on_with_a_checkpoint(recipe):
    retrain(recipe, PATH)
    checkpoint = max((recipe.output / "retrained").glob("*.ckpt"))
    with pytest.raises(CheckpointError, match="path: layer_1 was 'k5' and now is 'k3'"):
        retrain(recipe, {**PATH, "layer_1": "k3"}, start=checkpoint)


@pytest.mark.slow
def test_continuing_begins_goes_on_and_leaves_what_is_finished(recipe):
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        retrain(recipe, PATH, start=Start.RESUME)
    first = retrain(recipe, PATH, start=Start.CONTINUE)
    file = recipe.output / "retrained.pt"
    before = file.stat().st_mtime_ns
    assert_equal(first, retrain(recipe, PATH, start=Start.CONTINUE))
    assert file.stat().st_mtime_ns == before
    file.unlink()
    max((recipe.output / "retrained").glob("*.ckpt")).unlink()
    (left,) = (recipe.output / "retrained").glob("*.ckpt")
    assert_equal(first, retrain(recipe, PATH, start=Start.CONTINUE))
    assert left.exists()


@pytest.mark.parametrize("start", [Start.RESUME, Start.CONTINUE])
@pytest.mark.slow
def test_a_finished_network_of_another_path_is_not_taken_for_this_one(recipe, start):
    retrain(recipe, PATH)
    with pytest.raises(CheckpointError, match="is the network of another path"):
        retrain(recipe, {**PATH, "layer_1": "k3"}, start=start)
    assert retrain(recipe, PATH, start=start).path == PATH


@pytest.fixture
def quantized(tmp_path):
    content = {
        "output": "runs",
        "space": {"name": "resnet_small", "stage_channels": [4, 8], "stage_repeats": [1, 1]},
        "data": {"name": "digits", "num_train": 100, "num_validation": 60},
        "supernet": {"epochs": 1},
        "retrain": {"epochs": 1, "batch_size": 50, "learning_rate": 1e-12,
                    "initial_weights": "supernet"},
    }  # fmt: skip
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(content))
    return load_recipe(tmp_path / "recipe.yml")


@pytest.mark.slow
def test_weights_of_other_data_are_refused_by_their_file(quantized):
    supernet = build_recipe_supernet(quantized)
    save_supernet(quantized.checkpoint, supernet, {})
    path = {"channels_1": 3, "bits_1": "2w4a", "channels_2": 10, "bits_2": "4w4a"}
    with pytest.raises(CheckpointError, match=r"supernets/\w+\.pt: .*in the checkpoint"):
        retrain(quantized, path)


@pytest.mark.slow
def test_a_quantized_path_can_begin_with_its_part_of_the_supernet(quantized):
    path = {"channels_1": 3, "bits_1": "2w4a", "channels_2": 10, "bits_2": "4w4a"}
    with pytest.raises(CheckpointError, match="Train the supernet first"):
        retrain(quantized, path)
    supernet = build_recipe_supernet(quantized, seed=5)
    for name, parameter in supernet.named_parameters():
        if name.endswith("clips.4"):
            torch.nn.init.constant_(parameter, 3.5)
    data = open_data(quantized.data)
    save_supernet(quantized.checkpoint, supernet, data.preprocessing)
    network = retrain(quantized, path).network
    expected = extract_subnet(supernet, path).state_dict()
    learnt = dict(network.named_parameters())
    norms = {name for name in learnt if name not in expected}
    assert norms
    assert all(name.endswith((".weight", ".bias")) for name in norms)
    for name in learnt.keys() - norms:
        assert torch.allclose(learnt[name], expected[name], atol=1e-6), name
    assert learnt["blocks.0.main.0.clip"].item() == 3.5

    fresh = dataclasses.replace(quantized.retrain, initial_weights="random")
    other = retrain(dataclasses.replace(quantized, retrain=fresh), path, start=Start.OVERWRITE)
    weight = "blocks.0.main.0.weight"
    assert not torch.allclose(other.network.state_dict()[weight], expected[weight], atol=1e-3)
