from pathlib import Path

import pytest
import yaml

from nni_spos.recipe import load_recipe

CONTENT = {
    "output": "output",
    "space": {
        "name": "shufflenet",
        "stem_channels": 4,
        "stem_stride": 1,
        "stage_repeats": [1, 2],
        "stage_channels": [8, 16],
        "last_channels": 16,
    },
    "data": {"name": "digits", "image_size": 8, "num_train": 100, "num_validation": 60},
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
