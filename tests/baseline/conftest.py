from pathlib import Path

import pytest
import yaml
from tiny_space import TINY_DATA, TINY_SPACE

from nni_spos.recipe.recipe import load_recipe

CONTENT = {
    "output": "output",
    "space": TINY_SPACE,
    "data": TINY_DATA,
    "supernet": {"epochs": 1, "batch_size": 20, "warmup_steps": 1},
    "evaluation": {"recalibration_images": 40, "batch_size": 20},
    "search": {
        "constraints": ["flops <= 13k"],
        "population_size": 4,
        "num_generations": 2,
        "top_k": 2,
    },
    "retrain": {"epochs": 1, "batch_size": 20},
}


@pytest.fixture
def write(tmp_path):
    """Write a recipe, of another space if one is given; other sections change their defaults."""

    def run(space=CONTENT["space"], **sections) -> Path:
        merged = {**CONTENT, **{k: {**CONTENT[k], **v} for k, v in sections.items()}}
        merged["space"] = space
        if space["name"] != "shufflenet":
            merged["data"] = {"name": "digits"}
        file = tmp_path / "recipe.yml"
        file.write_text(yaml.safe_dump(merged))
        return file

    return run


@pytest.fixture
def recipe(write):
    return load_recipe(write())
