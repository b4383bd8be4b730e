"""The stages on a CUDA device; see conftest.py for how these are run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from nni_spos.cli import main
from nni_spos.data import open_data
from nni_spos.path import PathSpace
from nni_spos.priors import UniformPrior
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.report.stages import read_stages
from nni_spos.retraining.network import load_network
from nni_spos.scoring.evaluation import evaluate_path, evaluate_paths
from nni_spos.search.run_record import read_run_record
from nni_spos.search.running import run_search
from nni_spos.spaces import Form
from nni_spos.supernet import load_supernet
from nni_spos.supernet.building import build_recipe_space, restore_recipe_supernet

pytestmark = pytest.mark.gpu

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "digits.yml"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Recipe:
    """The digits' recipe with a supernet that a third of its epochs trained."""
    content = yaml.safe_load(RECIPE.read_text())
    content["output"] = "output"
    content["supernet"].update(epochs=20)
    file = tmp_path_factory.mktemp("gpu") / "recipe.yml"
    file.write_text(yaml.safe_dump(content))
    assert main(["train", str(file), "--paths", "0"]) == 0
    return load_recipe(file)


def test_from_images_to_a_network(recipe, tmp_path):
    file, best = str(recipe.file), tmp_path / "best.json"
    assert main(["search", file, "--output", str(best)]) == 0
    assert main(["retrain", file, "--path", str(best)]) == 0

    results = run_search(recipe)
    assert (results.num_done, results.num_failed) == (32, 0)
    trained = load_network(recipe.files.retrained)
    assert trained.path == results.best.path
    assert trained.test["top1"] > 90
    cost = read_run_record(results.folder).cost
    for stage in read_stages(recipe, cost, trained.path, None):
        assert stage.cost.device == torch.cuda.get_device_name(), stage.name
        assert stage.cost.peak_memory_bytes > 1e6, stage.name


def test_paths_score_together_and_on_the_cpu_nearly_as_alone(recipe):
    data = open_data(recipe.data)
    supernet = restore_recipe_supernet(recipe, load_supernet(recipe.checkpoint), data)
    space = PathSpace.from_model_space(build_recipe_space(recipe, Form.SUBNET))
    prior = UniformPrior(space, seed=1)
    paths = [prior.path(step) for step in range(6)]
    settings = dataclasses.replace(recipe.evaluation, precision="32-true")
    found = {}
    for device in ("cpu", "cuda"):
        supernet.to(device)
        together = evaluate_paths(supernet, paths, data, settings)
        alone = [evaluate_path(supernet, path, data, settings) for path in paths]
        found |= {(device, "together"): together, (device, "alone"): alone}
    exact = [result.loss for result in found["cpu", "alone"]]
    for way, results in found.items():
        assert [result.loss for result in results] == pytest.approx(exact, rel=0.01), way
