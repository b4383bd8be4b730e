"""What a tuner reads from NNI's configuration: recipe, search space, where its trials run."""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import RecipeError
from nni_spos.experiment.exchange import restore_numbers
from nni_spos.experiment.nni_arguments import configuration, tuner_folder
from nni_spos.path import PathSpace
from nni_spos.recipe.recipe import Recipe, load_recipe
from nni_spos.recipe.settings import is_file_name
from nni_spos.values import shown


def code_directory() -> FilePath:
    """Return the `codeDirectory` of the tuner's configuration, else the working directory.

    NNI runs the tuner in the experiment's log folder. It passes the configuration, with absolute
    folders, in the option ``--exp_params``.
    """
    return FilePath(tuner_folder() or ".").absolute()


def training_platform() -> str:
    """Return the platform that the trials run on, such as ``local`` or ``remote``."""
    return configuration().get("trainingService", {}).get("platform", "local")


def trial_command() -> str:
    """Return the command that NNI runs for each candidate; ``""`` if NNI did not start this."""
    config = configuration()
    return config.get("trainingService", {}).get("trialCommand") or config.get("trialCommand") or ""


def load_tuner_recipe(class_args: dict[str, Any], folder: FilePath) -> Recipe:
    """Read the recipe that `classArgs` names, and change its search as `classArgs` says.

    Parameters
    ----------
    class_args
        See `nni_spos.experiment.tuner.EvolutionTuner`.
    folder
        Folder that the recipe's file name is relative to.

    Raises
    ------
    RecipeError
        There is no recipe, a key is unknown or a value is wrong.
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
    """Check that NNI has the search space of the recipe. Raises RecipeError or PathError."""
    given = PathSpace.from_search_space(search_space)
    # NNI may turn 1.0 into 1.
    restored = {
        label: [restore_numbers({label: value}, space)[label] for value in values]
        for label, values in given.items()
    }
    wrong = space.differing(PathSpace(restored))
    if wrong:
        raise RecipeError(
            f"NNI's search space is not the one of {recipe.file.name}: label '{wrong[0]}' has "
            f"{given.describe_choices(wrong[0])} instead of {space.describe_choices(wrong[0])}. "
            "Write the file again with 'nni-spos space'."
        )
