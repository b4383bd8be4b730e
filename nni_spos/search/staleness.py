"""Is a search that is on the disk still one of today's model, images and settings?"""

from __future__ import annotations

import warnings

from nni_spos.errors import ExperimentError, SposError, StaleWarning
from nni_spos.path import Path
from nni_spos.recipe.identity import PARTS_OF, Result, describe
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.search.results import Results, load_results
from nni_spos.search.run_record import read_run_record
from nni_spos.values import changes

SETTINGS = "search"
"""The part that an NNI configuration may change: the recipe does not say all of it."""


def changes_since(results: Results, recipe: Recipe) -> str:
    """Return what has changed since a search of a recipe, for a message; "" if nothing."""
    compared = [name for name in PARTS_OF[Result.SEARCH] if name != SETTINGS]
    now = describe(Result.SEARCH, recipe)
    parts = [{x: found[x] for x in compared if x in found} for found in (results.settings, now)]
    return changes(*parts)


def stale_line(results: Results, recipe: Recipe | None = None) -> str:
    """Return one line if a search that has a result is not one of today's; else "".

    Parameters
    ----------
    results
        The search.
    recipe
        By default the one that the search was of; nothing is said if that is not there any more.
    """
    if recipe is None:
        file = read_run_record(results.folder).recipe
        try:
            recipe = None if file is None else load_recipe(file)
        except SposError:
            recipe = None
    found = changes_since(results, recipe) if recipe is not None and results.num_done else ""
    if not found:
        return ""
    return (
        f"{results.file}: is a search with other settings than today's ({found}). To search anew: "
        "'nni-spos search --overwrite', or a new experiment."
    )


def warn_if_stale(results: Results, recipe: Recipe | None = None) -> bool:
    """Say in one line that a search is not one of today's; return whether it was said."""
    line = stale_line(results, recipe)
    if line:
        warnings.warn(line, StaleWarning, stacklevel=2)
    return bool(line)


def warn_of_path(recipe: Recipe, path: Path) -> None:
    """Say in one line that a path is the best of a search in the output folder, but not today's."""
    for search in recipe.files.searches():
        try:
            results = load_results(search.path)
        except ExperimentError:
            continue
        if results.num_done and results.best.path == path:
            warn_if_stale(results, recipe)
