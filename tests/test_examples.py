"""The example files are valid, and the ImageNet ones run: a few steps on generated images."""

from __future__ import annotations

import dataclasses
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from nni_spos.cli import main
from nni_spos.data import open_data
from nni_spos.experiment.check import check_config
from nni_spos.priors import SPOS_BINS
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.retraining.retrain import retrain
from nni_spos.search.running import run_search
from nni_spos.spaces import read_path
from nni_spos.supernet.building import build_recipe_costs
from nni_spos.supernet.training import train_supernet

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def examples(tmp_path):
    for folder in ("examples", "search_spaces"):
        shutil.copytree(EXAMPLES.parent / folder, tmp_path / folder)
    return tmp_path / "examples"


@pytest.mark.parametrize(
    ("name", "num_candidates"),
    [
        ("spos", 32),
        ("fashion_mnist", 120),
        ("imagenet", 1000),
        ("proxylessnas", 1000),
        ("fbnet", 1000),
        ("nasbench_macro", 400),
        ("own_model/spos", 24),
        ("image_folder", 120),
        ("segmentation/spos", 24),
        ("keypoints/spos", 24),
        ("channels", 120),
        ("joint", 120),
        ("bits", 120),
    ],
)
@pytest.mark.slow
def test_the_configurations_are_valid(examples, name, num_candidates):
    checked = check_config(examples / f"{name}.yml")
    assert checked.num_candidates == num_candidates
    if checked.recipe.data.name != "image_folder":
        assert checked.warnings == ()
        return
    (warning,) = checked.warnings
    assert "there are no images in" in warning
    assert str(examples.parent / "data") in warning


@pytest.mark.slow
def test_the_configuration_of_a_network_of_ones_own_is_valid(examples):
    folder = examples / "compress"
    (folder / "pretrain.py").write_text(
        "import torch\nfrom network import make\ntorch.save(make().state_dict(), 'network.pt')\n"
    )
    subprocess.run([sys.executable, "pretrain.py"], cwd=folder, check=True)
    checked = check_config(folder / "spos.yml")
    assert (checked.num_candidates, checked.warnings) == (40, ())


def test_the_configuration_for_other_machines_is_valid(examples, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_rsa").touch()
    checked = check_config(examples / "remote.yml")
    assert checked.num_candidates == 32
    assert checked.recipe.file == examples / "recipes" / "digits.yml"
    (warning,) = checked.warnings
    assert "fetch the supernet and do not train it. Train it first" in warning
    assert main(["start", str(examples / "remote.yml")]) == 2
    assert "nni-spos train" in capsys.readouterr().err
    checked.recipe.checkpoint.touch()
    assert check_config(examples / "remote.yml").warnings == ()
    assert main(["start", str(examples / "remote.yml")]) == 2
    assert capsys.readouterr().err.startswith("ExperimentError: the machines would look for NNI's")


def test_imagenet_has_the_papers_settings():
    recipe = load_recipe(EXAMPLES / "recipes" / "imagenet.yml")
    assert (recipe.supernet.steps, recipe.retrain.steps) == (150_000, 300_000)
    for settings in (recipe.supernet, recipe.retrain):
        assert settings.batch_size == 1024
        assert settings.learning_rate == 0.5
        assert settings.momentum == 0.9
        assert settings.weight_decay == 4e-5
        assert settings.label_smoothing == 0.1
    bins = [(limit.metric, limit.low, limit.high) for limit in recipe.supernet.own().prior_bins]
    assert bins == [("flops", *interval) for interval in SPOS_BINS]
    search = recipe.search
    assert (search.population_size, search.num_generations, search.own().top_k) == (50, 20, 10)
    own = search.own()
    assert (own.num_mutations, own.num_crossovers, own.mutation_prob) == (25, 25, 0.1)
    assert [str(limit) for limit in search.constraints] == ["flops <= 330M"]
    assert recipe.evaluation.recalibration_images == 20_000
    assert recipe.data.num_validation == 50_000


@pytest.mark.parametrize("name", ["proxylessnas", "fbnet"])
def test_other_spaces_on_imagenet_are_trained_and_searched_alike(name):
    papers = load_recipe(EXAMPLES / "recipes" / "imagenet.yml")
    recipe = load_recipe(EXAMPLES / "recipes" / f"{name}.yml")
    bins = {"arguments": papers.supernet.arguments}
    assert dataclasses.replace(recipe.supernet, **bins) == papers.supernet
    limits = {"constraints": papers.search.constraints}
    assert dataclasses.replace(recipe.search, **limits) == papers.search
    assert (recipe.data, recipe.evaluation) == (papers.data, papers.evaluation)
    assert recipe.retrain == papers.retrain


@pytest.mark.parametrize(
    ("recipe", "name"), [("imagenet", "shufflenet-spos"), ("proxylessnas", "proxylessnas-gpu")]
)
@pytest.mark.slow
def test_the_published_network_meets_the_limit(recipe, name):
    recipe = load_recipe(EXAMPLES / "recipes" / f"{recipe}.yml")
    path = read_path(name, recipe.space)
    costs = build_recipe_costs(recipe)[1]
    (limit,) = recipe.search.constraints
    assert limit.high * 0.97 < costs["flops"].price(path) <= limit.high


def test_own_images_with_labels_are_listed_in_a_file(examples):
    folder = examples / "own_data"
    runpy.run_path(str(folder / "make_images.py"), run_name="__main__")
    checked = check_config(folder / "spos.yml")
    assert (checked.num_candidates, checked.warnings) == (24, ())
    data = open_data(checked.recipe.data, task=checked.recipe.task)
    assert (data.num_train, data.num_validation, data.task.objective) == (240, 80, "map")


@pytest.mark.parametrize("name", ["own_model", "segmentation"])
def test_the_search_space_of_an_own_model_is_what_nni_spos_prints(name, examples, capsys):
    folder = examples / name
    assert main(["space", str(folder / "recipe.yml")]) == 0
    assert capsys.readouterr().out == (folder / "search_space.json").read_text()


def test_the_own_models_costs():
    recipe = load_recipe(EXAMPLES / "own_model" / "recipe.yml")
    space, costs = build_recipe_costs(recipe)
    assert space.size == 4 * 3 * 3 * 3 * 3
    path = {"width": 12, "block_1": "k5", "bits_1": "4w4a", "block_2": "skip", "bits_2": "8w8a"}
    block = 256 * (12 * 25 + 12 * 12)
    reductions = 64 * 24 * 12 * 9, 16 * 48 * 24 * 9
    flops = 256 * 12 * 9 + block + sum(reductions) + 48 * 10
    assert costs["flops"].price(path) == flops
    assert costs["bitops"].price(path) == reductions[0] * 4 * 4 + reductions[1] * 8 * 8
    # Weights, then two numbers a BatchNorm channel and, at 32 bits, a clipping value for each
    # quantized layer, and the biases of the classifier.
    full = 12 * 9 + 12 * 25 + 12 * 12 + 48 * 10 + 2 * (12 + 12 + 24 + 48) + 2 + 10
    quantized = 24 * 12 * 9, 48 * 24 * 9
    assert costs["params"].price(path) == full + sum(quantized)
    assert costs["size_bytes"].price(path) == 4 * full + quantized[0] // 2 + quantized[1]


def write_images(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 2)):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (150, 200, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.JPEG")


@pytest.mark.slow
def test_imagenet_from_images_to_a_network(examples, tmp_path):
    file = examples / "recipes" / "imagenet.yml"
    content = yaml.safe_load(file.read_text())
    write_images(tmp_path / "data" / "imagenet")
    content["data"].update(num_classes=2, num_validation=4, workers=0)
    content["supernet"].update(steps=2, batch_size=4)
    content["evaluation"].update(recalibration_images=4, batch_size=4)
    content["search"].update(population_size=2, num_generations=1, top_k=1)
    content["search"].update(num_mutations=1, num_crossovers=1)
    content["retrain"].update(steps=2, batch_size=4)
    file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(file)

    train_supernet(recipe)
    results = run_search(recipe)
    assert results.num_done == 2
    assert all(candidate.costs["flops"] <= 330e6 for candidate in results.candidates)
    trained = retrain(recipe, results.best.path)
    assert trained.test is not None
    assert trained.test["num_images"] == 4
    loaded = load_network(recipe.output / "retrained.pt")
    assert loaded.costs["flops"] == results.best.costs["flops"]
    space = loaded.space
    assert (space.num_classes, space.in_channels, space.input_size) == (2, 3, 224)
