"""What a training will miss among the images of a user, said before NNI starts."""

from __future__ import annotations

from nni_spos.recipe.dataset import explained, find_dataset
from nni_spos.recipe.recipe import Recipe


def image_warnings(recipe: Recipe) -> list[str]:
    """Return what is missing among the images of a recipe, a sentence each.

    A warning is enough here: a check tries everything on generated images, and a training refuses
    to begin without its own.
    """
    with explained(recipe.data):
        missing = find_dataset(recipe.data).missing()
    return [f"{recipe.file.name}: data: {text}" for text in missing]
