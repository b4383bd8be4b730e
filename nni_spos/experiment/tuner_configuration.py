"""What NNI's configuration tells a tuner: its recipe, its search space, where its trials run."""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import RecipeError
from nni_spos.experiment.exchange import restore_numbers
from nni_spos.experiment.nni_arguments import configuration, tuner_folder
from nni_spos.path import PathSpace
from nni_spos.recipe import Recipe, load_recipe
from nni_spos.settings import is_file_name
from nni_spos.values import shown


def code_directory() -> FilePath:
    """Return the `codeDirectory` of the tuner's configuration, else the working directory.

    NNI runs the tuner in the experiment's log folder and passes the configuration, with absolute
    folders, in the command line option ``--exp_params``.
    """
    return FilePath(tuner_folder() or ".").absolute()


def training_platform() -> str:
    """Return NNI's name of where the trials run, such as ``local`` or ``remote``."""
    return configuration().get("trainingService", {}).get("platform", "local")


def trial_command() -> str:
    """Return what NNI runs for each candidate, or ``""`` if this process was not started by NNI."""
    config = configuration()
    return config.get("trainingService", {}).get("trialCommand") or config.get("trialCommand") or ""


def load_tuner_recipe(class_args: dict[str, Any], folder: FilePath) -> Recipe:
    """Read the recipe that the tuner's `classArgs` name, with their changes to the search.

    Parameters
    ----------
    class_args
        See `nni_spos.experiment.tuner.EvolutionTuner`.
    folder
        What the recipe's file name is relative to.

    Raises
    ------
    RecipeError
        No recipe, an unknown key or a wrong value.
    """
    if not isinstance(class_args, dict):
        raise RecipeError(f"classArgs: must map keys to values, got {shown(class_args)}.")
    changes = dict(class_args)
    file = changes.pop("recipe", None)
    if not is_file_name(file):
        raise RecipeError(
            f"classArgs: the key 'recipe' must name a file, got {shown(file)}; e.g. 'recipe: "
            "spos.yml'."
        )
    recipe = load_recipe(folder / os.path.expanduser(file))
    return recipe.with_search(changes, "classArgs")


def check_space(search_space: Any, space: PathSpace, recipe: Recipe) -> None:
    """Check that NNI's search space is the recipe's. Raises RecipeError, or PathError."""
    given = PathSpace.from_search_space(search_space)
    # NNI may hand on 1.0 as 1.
    restored = {
        label: [restore_numbers({label: value}, space)[label] for value in values]
        for label, values in given.items()
    }
    wrong = space.differing(PathSpace(restored))
    if wrong:
        raise RecipeError(
            f"NNI's search space is not that of {recipe.file.name}: label '{wrong[0]}' has "
            f"{given.describe_choices(wrong[0])} instead of {space.describe_choices(wrong[0])}. "
            "Write it anew with 'nni-spos space'."
        )
