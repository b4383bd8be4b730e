"""A supernet that begins with another file's weights: what fits, what does not, what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import yaml
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from nni_spos.errors import CheckpointError, InitialWeightsWarning, RecipeError
from nni_spos.files.tensors import save_tensors
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.training_settings import SupernetSettings
from nni_spos.supernet import load_supernet, save_supernet
from nni_spos.supernet.building import build_recipe_supernet
from nni_spos.supernet.initial_weights import begin_with, fit_weights
from nni_spos.supernet.training import train_supernet
from nni_spos.training import Start

RESNET = {"name": "resnet_small", "stage_channels": [8, 16], "stage_repeats": [1, 1],
          "channel_scales": [0.5, 1.0]}  # fmt: skip
PAIRS = [[32, 32], [4, 4]]


def write(folder, name, space, **supernet):
    content = {
        "output": name,
        "space": {**RESNET, **space},
        "data": {"name": "digits", "num_train": 80, "num_validation": 20},
        "supernet": {"steps": 1, "batch_size": 40, "learning_rate": 0.0, **supernet},
        "retrain": {"epochs": 1},
    }
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump(content))
    return load_recipe(file)


def save_float(folder):
    """A float supernet with random weights and statistics, in ``float/supernet.pt``."""
    recipe = write(folder, "float", {"bit_pairs": None})
    supernet = build_recipe_supernet(recipe, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for norm in supernet.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
    save_supernet(recipe.checkpoint, supernet, {})
    return supernet.eval()


def outputs(supernet, path):
    for module in supernet.modules():
        if isinstance(module, BaseSuperNetModule):
            module.resample(memo=path)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return supernet(images)


SWITCHED = {"switchable_norm": True}


@pytest.mark.parametrize("norm", [{}, SWITCHED, {**SWITCHED, "norm_per": "activation_bits"}])
def test_the_float_path_of_a_bit_supernet_is_the_float_supernet(tmp_path, norm):
    float_supernet = save_float(tmp_path)
    space = {"bit_pairs": PAIRS, **norm}
    recipe = write(tmp_path, "bits", space, initial_weights="float/supernet.pt")
    supernet = build_recipe_supernet(recipe, seed=0).eval()
    path = {"channels_1": 4, "channels_2": 16}
    bits = {"bits_1": "32w32a", "bits_2": "32w32a"}
    expected = outputs(float_supernet, path)
    assert not torch.allclose(outputs(supernet, path | bits), expected, atol=1e-2)
    fit = fit_weights(supernet, recipe.supernet.initial_file)
    clips = [x for x in supernet.state_dict() if ".clips." in x]
    assert clips
    assert (list(fit.missing), list(fit.unused)) == (clips, [])
    begin_with(supernet, recipe.supernet.initial_file)
    torch.testing.assert_close(outputs(supernet, path | bits), expected, rtol=0, atol=0)
    four = {"bits_1": "4w4a", "bits_2": "4w4a"}
    assert not torch.allclose(outputs(supernet, path | four), expected, atol=1e-3)


@pytest.mark.slow
def test_a_training_begins_with_the_file_and_depends_on_it(tmp_path):
    float_supernet = save_float(tmp_path)
    recipe = write(tmp_path, "bits", {"bit_pairs": PAIRS}, initial_weights="float/supernet.pt")
    with pytest.warns(InitialWeightsWarning, match=r" 5 begin as without it \(blocks.0.main.0"):
        train_supernet(recipe)
    trained = load_supernet(recipe.checkpoint)
    theirs = dict(float_supernet.named_parameters())
    assert len(theirs) > 5
    for name, parameter in theirs.items():
        assert torch.equal(trained.weights[name], parameter), name
    assert trained.made_for == describe(Result.SUPERNET, recipe)
    file = recipe.supernet.initial_file
    content = torch.load(file, weights_only=True)
    content["weights"]["classifier.bias"] += 1
    save_tensors(file, content)
    assert trained.made_for != describe(Result.SUPERNET, recipe)


class Layers(nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(2, 2)


def test_what_does_not_fit_is_one_line(tmp_path):
    network, file = Layers(), tmp_path / "a.pt"
    before = {name: x.clone() for name, x in network.state_dict().items()}
    save_tensors(file, Layers().state_dict())
    assert fit_weights(network, file).describe() == ""
    other = {
        **Layers(width=4).state_dict(),
        "more\x1b": torch.ones(1),
        "last.weight": torch.ones(2, 2),
    }
    for holder, prefix in (("", ""), ("state_dict", "module."), ("weights", "")):
        state = {f"{prefix}{name}": x for name, x in other.items()}
        save_tensors(file, {holder: state} if holder else state)
        line = fit_weights(network, file).describe()
        assert line == (
            f"{file}: 3 tensors of the supernet begin with those of the file; 6 begin as without "
            "it (first.weight, first.bias, norm.weight and 3 more) and 7 of the file are not used "
            "(first.weight, first.bias, norm.weight and 4 more)."
        )
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    begin_with(network, file)
    changed = {name for name, x in network.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == {"last.weight", "last.bias"}
    assert torch.equal(network.last.weight, torch.ones(2, 2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": torch.ones(1)}, r"none of its 1 tensors fits the supernet. The first name in it is"),
        ({"norm.num_batches_tracked": torch.tensor(3)}, "none of its 1 tensors fits"),
        ({"last.bias": torch.ones(2, dtype=torch.int64)}, "none of its 1 tensors fits"),
        ({"last.bias": torch.tensor([1.0, float("nan")])}, "its weight 'last.bias' is not finite"),
        ([1], "is no state dict"),
        ({}, "none of its 0 tensors fits"),
        (Layers, "cannot be loaded safely"),
    ],
)
def test_files_that_are_refused(tmp_path, content, message):
    network = Layers()
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message) as raised:
        begin_with(network, tmp_path / "a.pt")
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "a.pt") in str(raised.value)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        begin_with(network, tmp_path / "b.pt")


def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    save_tensors(tmp_path / "a.pt", {"x": torch.ones(1)})
    recipe = write(tmp_path, "bits", {"bit_pairs": PAIRS}, initial_weights="a.pt")
    with pytest.raises(CheckpointError, match="none of its 1 tensors fits"):
        train_supernet(recipe)
    assert not recipe.checkpoint.exists()


def test_a_training_does_not_begin_with_the_file_that_it_writes(tmp_path):
    recipe = write(tmp_path, "bits", {}, initial_weights="./bits/../bits/supernet.pt")
    save_supernet(recipe.checkpoint, build_recipe_supernet(recipe, seed=0), {})
    before = recipe.checkpoint.read_bytes()
    with pytest.raises(CheckpointError, match="is the file that this training writes"):
        train_supernet(recipe, Start.OVERWRITE)
    assert recipe.checkpoint.read_bytes() == before


def test_the_key_takes_words_or_a_file(tmp_path):
    settings = SupernetSettings(epochs=1)
    assert settings.initial_file is None
    assert "initial_weights" not in settings.deciding()
    for name in ("a.pt", "float/supernet", "./a"):
        file = dataclasses.replace(settings, initial_weights=name, folder=tmp_path).initial_file
        assert file == tmp_path / name
    for name in ("orignal", "supernet", "", "a\0.pt", 3):
        with pytest.raises(RecipeError, match=r"must be random, original, or a file such as"):
            SupernetSettings(epochs=1, initial_weights=name)
    recipe = write(tmp_path, "a", {}, initial_weights="./a.pt")
    save_tensors(tmp_path / "a.pt", {"x": torch.ones(1)})
    first = recipe.supernet.deciding()["initial_weights"]
    moved = write(tmp_path, "a", {}, initial_weights="b.pt")
    (tmp_path / "a.pt").rename(tmp_path / "b.pt")
    assert moved.supernet.deciding()["initial_weights"] == first
    save_tensors(tmp_path / "b.pt", {"x": torch.zeros(1)})
    assert moved.supernet.deciding()["initial_weights"] != first


def test_without_a_section_retrain_a_path_begins_with_the_supernet(tmp_path):
    recipe = write(tmp_path, "a", {}, initial_weights="a.pt")
    content = yaml.safe_load(recipe.file.read_text())
    del content["retrain"]
    recipe.file.write_text(yaml.safe_dump(content))
    assert load_recipe(recipe.file).retrain.initial_weights == "supernet"
