"""A recipe names components of every kind of a plug-in, or of its own folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).parent / "example_plugin"

RECIPE = {
    "output": "output",
    "space": {
        "name": "shufflenet_small",
        "stage_repeats": [1, 1],
        "stage_channels": [32, 64],
        "last_channels": 64,
    },
    "task": {"name": "grades", "distance": 0.2},
    "data": {"name": "stripes", "noise": 20, "num_images": 80},
    "supernet": {
        "steps": 2,
        "batch_size": 10,
        "prior": "lean",
        "lean": 3,
        "techniques": [{"name": "steady", "strength": 0.1}],
    },
    "metrics": [{"name": "energy_nj", "pj_per_mac": 3}],
    "evaluation": {"recalibration_images": 10, "batch_size": 10},
    "search": {
        "algorithm": "local",
        "reach": 0.4,
        "constraints": ["energy_nj <= 1M"],
        "population_size": 2,
        "num_generations": 2,
    },
    "retrain": {"steps": 2, "batch_size": 10},
}
BESIDE = {
    "task": {**RECIPE["task"], "name": "grades:Grades"},
    "data": {**RECIPE["data"], "name": "stripes:Stripes"},
    "supernet": {
        **RECIPE["supernet"],
        "prior": "lean:Lean",
        "techniques": [{"name": "steady:Steady", "strength": 0.1}],
    },
    "metrics": [{"name": "energy:Energy", "pj_per_mac": 3}],
    "search": {**RECIPE["search"], "algorithm": "local:Local"},
}


def run_all(run, folder, recipe, **options):
    (folder / "recipe.yml").write_text(yaml.safe_dump(recipe))
    for arguments in (["train", "recipe.yml"], ["search", "recipe.yml", "--output", "best.json"]):
        done = run(*arguments, **options)
        assert not done.returncode, done.stderr
    assert "energy_nj" in done.stdout
    with open(folder / "output" / "search" / "search.jsonl") as journal:
        outcomes = [json.loads(line) for line in journal][1:]
    assert len(outcomes) == 4
    assert all(0 <= outcome["metrics"]["within_one"] <= 100 for outcome in outcomes)
    assert "grades at most one off (%)" in done.stdout
    costs = [outcome["costs"]["energy_nj"] for outcome in outcomes]
    assert all(0 < cost <= 1e6 for cost in costs)
    done = run("prior", "recipe.yml", **options)
    assert "drawn by Lean" in done.stdout, done.stderr


@pytest.mark.spawn
def test_installed_components_are_known_by_their_names(run, tmp_path):
    run_all(run, tmp_path, RECIPE)
    wrong = {
        "prior": ("supernet", {"leen": 1}, "unknown key 'leen'; did you mean 'lean'"),
        "train": ("supernet", {"prior": "leen"}, "unknown prior 'leen'; did you mean 'lean'"),
        "search": ("search", {"algorithm": "locl"}, "unknown search 'locl'; did you mean 'local'"),
    }
    for command, (section, keys, message) in wrong.items():
        recipe = {**RECIPE, section: {**RECIPE[section], **keys}}
        (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
        done = run(command, "recipe.yml")
        assert done.returncode == 2
        assert message in done.stderr
    schema = run("schema").stdout
    assert all(f'"{name}"' in schema for name in ("energy_nj", "lean", "local", "steady"))


@pytest.mark.spawn
def test_the_same_classes_are_found_beside_the_recipe(run, tmp_path):
    for file in EXAMPLE.glob("*.py"):
        if file.stem != "__init__":
            shutil.copy(file, tmp_path)
    run_all(run, tmp_path, {**RECIPE, **BESIDE}, site=None)
    for name, result in (("local", "search"), ("lean", "train"), ("steady", "train")):
        file = tmp_path / f"{name}.py"
        file.write_text(file.read_text() + "CHANGED = 1\n")
        done = run(result, "recipe.yml", *(["--continue"] if result == "train" else []))
        assert done.returncode == 2
        kinds = {"local": "search", "lean": "prior", "steady": "techniques of the supernet"}
        assert f"code of the {kinds[name]}" in done.stderr, done.stderr
