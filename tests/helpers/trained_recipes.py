"""A tiny recipe whose supernet is on the disk, with random weights, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tiny_space import TINY_DATA, TINY_SPACE

from nni_spos.costs.stored import save_costs
from nni_spos.data import open_data
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.spaces import Form
from nni_spos.supernet import building, save_supernet


def write_trained(folder: Path, **sections: Any) -> Recipe:
    """Write recipe, costs and checkpoint; a section given here is merged into its defaults."""
    recipe = write_untrained(folder, **sections)
    supernet = building.build_recipe_space(recipe, Form.SUPERNET, seed=0)
    save_supernet(recipe.checkpoint, supernet, open_data(recipe.data).preprocessing)
    return recipe


def write_untrained(folder: Path, **sections: Any) -> Recipe:
    """Write a recipe and its costs, which then need not be built in a process of their own."""
    content: dict[str, Any] = {
        "output": "output",
        "space": TINY_SPACE,
        "data": TINY_DATA,
        "supernet": {"steps": 2, "batch_size": 20},
        "retrain": {"epochs": 1},
        "evaluation": {"recalibration_images": 40, "batch_size": 20},
        "search": {"population_size": 4, "num_generations": 2, "top_k": 2},
    }
    for name, section in sections.items():
        content[name] = {**content[name], **section}
    file = folder / "recipe.yml"
    file.write_text(yaml.safe_dump(content))
    recipe = load_recipe(file)
    save_costs(recipe, *building.build_analytic_costs(recipe))
    return recipe


def change_recipe(section: str, **changes: Any) -> None:
    """Change a section of the recipe in the working directory."""
    content = yaml.safe_load(Path("recipe.yml").read_text())
    content.setdefault(section, {}).update(changes)
    Path("recipe.yml").write_text(yaml.safe_dump(content))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files that a refused command must leave as they are."""
    files = (file for file in folder.rglob("*") if file.is_file())
    # Locks hold nothing, and cost tables are complete, whatever goes wrong after them.
    return {
        str(file): file.read_bytes()
        for file in files
        if file.suffix != ".lock" and file.name != "costs.json"
    }
