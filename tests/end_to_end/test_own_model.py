"""examples/own_model, from images to a network that is loaded with the user's own class."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml

from nni_spos.cli import main
from nni_spos.errors import CheckpointError
from nni_spos.experiment.start import ManagerOptions, start
from nni_spos.recipe.recipe import load_recipe
from nni_spos.retraining.network import load_network
from nni_spos.search.results import load_results
from nni_spos.spaces import Form
from nni_spos.supernet.building import build_recipe_space

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model"


@pytest.mark.nni
def test_a_model_beside_its_recipe(study, monkeypatch):
    monkeypatch.chdir("/")
    folder = study.folder / "own"
    shutil.copytree(EXAMPLE, folder)
    file = folder / "recipe.yml"
    content = yaml.safe_load(file.read_text())
    content["output"] = "output"
    content["data"].update(num_train=128, num_validation=64)
    content["supernet"].update(epochs=1)
    content["retrain"].update(epochs=1)
    content["search"].update(population_size=3, num_generations=2, top_k=2)
    file.write_text(yaml.safe_dump(content))

    # The tuner, the trials and the process that builds the costs all find the model.
    result = start(folder / "spos.yml", ManagerOptions(port=study.port), report=lambda line: None)
    assert result.status == "DONE"
    assert study.processes() == []
    results = load_results(result.id)
    assert (results.num_done, results.num_failed) == (6, 0)
    for candidate in results.candidates:
        assert candidate.costs["flops"] <= 600e3
        assert candidate.costs["size_bytes"] <= 16e3

    best = folder / "best.json"
    results.save_best(best)
    assert main(["retrain", str(file), "--path", str(best)]) == 0
    assert str(folder) not in sys.path
    recipe = load_recipe(file)
    with pytest.raises(CheckpointError, match=r"'my_model:MySpace', which is not imported"):
        load_network(recipe.files.retrained)
    space = type(build_recipe_space(recipe, Form.SUBNET))
    trained = load_network(recipe.files.retrained, space())
    assert trained.path == results.best.path
    assert trained.costs == results.best.costs
    assert trained.network(torch.zeros(2, 1, 16, 16)).shape == (2, 10)
