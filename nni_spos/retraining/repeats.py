"""A training repeated with other seeds, so that the spread of its result is known."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path as FilePath

from nni_spos.errors import RecipeError
from nni_spos.recipe.output import repetition
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.settings import LARGEST


def repetitions(recipe: Recipe, file: FilePath, count: int) -> list[tuple[Recipe, FilePath]]:
    """Return recipes that differ in the seed of retraining, and the file of each one's network.

    Parameters
    ----------
    recipe
        Its own seed is the first, each of the others is one more.
    file
        Of the first; the others are beside it, as ``NAME_seed1.pt``.
    count
        How many.

    Raises
    ------
    RecipeError
        `count` is below 1, or there are not as many seeds.
    """
    first = recipe.retrain.seed
    if not 1 <= count <= LARGEST - first + 1:
        raise RecipeError(f"--repeats: must be at least 1, with seeds below 2^63; got {count}.")
    found = [(recipe, file)]
    for seed in range(first + 1, first + count):
        settings = dataclasses.replace(recipe.retrain, seed=seed)
        other = repetition(file, seed)
        found.append((dataclasses.replace(recipe, retrain=settings), other))
    return found


def written_repetitions(file: FilePath) -> list[FilePath]:
    """Return those files of `repetitions` that are there, the first one first."""
    pattern = re.compile(re.escape(file.stem) + r"_seed(\d+)" + re.escape(file.suffix))
    others = {
        int(match[1]): other
        for other in (file.parent.iterdir() if file.parent.is_dir() else ())
        if (match := pattern.fullmatch(other.name))
    }
    return [*([file] if file.exists() else []), *(others[seed] for seed in sorted(others))]
