"""A package that pip installs brings components, and recipes know them by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

RECIPE = {
    "output": "output",
    "space": {
        "name": "shufflenet_small",
        "stage_repeats": [1, 1],
        "stage_channels": [32, 64],
        "last_channels": 64,
    },
    "data": {"name": "stripes", "noise": 20, "num_images": 80},
    "supernet": {"steps": 2, "batch_size": 10},
    "evaluation": {"recalibration_images": 10, "batch_size": 10},
    "search": {"population_size": 3, "num_generations": 1, "top_k": 2},
    "retrain": {"steps": 2, "batch_size": 10},
}


def write(folder, **data):
    content = {**RECIPE, "data": {**RECIPE["data"], **data}}
    (folder / "recipe.yml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_an_installed_data_set_is_known_by_its_name(run, tmp_path):
    write(tmp_path)
    for arguments in (["train", "recipe.yml"], ["search", "recipe.yml", "--output", "best.json"]):
        done = run(*arguments)
        assert not done.returncode, done.stderr
    done = run("retrain", "recipe.yml", "--path", "best.json")
    assert "80 images" in done.stdout, done.stderr
    write(tmp_path, noise=21)
    done = run("search", "recipe.yml")
    assert done.returncode == 2
    assert "data: noise was 20 and now is 21" in done.stderr
    write(tmp_path, name="stripe")
    done = run("train", "recipe.yml", "--overwrite")
    assert done.returncode == 2
    assert "unknown data set 'stripe'; did you mean 'stripes'?" in done.stderr
    write(tmp_path, noisy=1)
    done = run("train", "recipe.yml", "--overwrite")
    assert "unknown key 'noisy'; did you mean 'noise'?" in done.stderr
    assert '"stripes"' in run("schema").stdout


@pytest.mark.slow
def test_without_the_package_its_name_is_unknown(run, tmp_path):
    write(tmp_path)
    done = run("train", "recipe.yml", site=None)
    assert done.returncode == 2
    assert done.stderr.startswith("RecipeError: recipe.yml: data.name: unknown data set 'stripes'.")


@pytest.mark.slow
def test_the_same_class_is_found_beside_the_recipe(run, tmp_path):
    shutil.copy(Path(__file__).parent / "example_plugin" / "stripes.py", tmp_path)
    write(tmp_path, name="stripes:Stripes")
    done = run("train", "recipe.yml", site=None)
    assert not done.returncode, done.stderr
    assert (tmp_path / "output" / "supernet.pt").is_file()
