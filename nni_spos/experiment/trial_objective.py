"""What the result of a trial is called: the objective of the task that its experiment is about."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import SposError
from nni_spos.recipe.recipe import load_recipe
from nni_spos.recipe.registries import TASKS
from nni_spos.recipe.settings import is_file_name
from nni_spos.recipe.task import TaskSettings, find_task


def objectives_of(experiment: Mapping[str, Any]) -> Sequence[str]:
    """Return what a result may be called.

    Parameters
    ----------
    experiment
        The experiment's configuration, as NNI's manager has it.

    Returns
    -------
    The objective of the recipe's task; those of all our tasks where the recipe cannot be read, as
    on other machines than the tuner's.
    """
    task = _task_of(experiment)
    tasks = [TaskSettings(name) for name in TASKS.ours] if task is None else [task]
    try:
        return [find_task(x).objective for x in tasks]
    except SposError:  # the code of a user's task, which the tuner reports
        return []


def _task_of(experiment: Mapping[str, Any]) -> TaskSettings | None:
    tuner = experiment.get("tuner")
    tuner = tuner if isinstance(tuner, Mapping) else {}
    arguments: Any = tuner.get("classArgs")
    folder: Any = tuner.get("codeDirectory")
    file: Any = arguments.get("recipe") if isinstance(arguments, Mapping) else None
    if not is_file_name(file) or not is_file_name(folder):
        return None
    try:
        return load_recipe(FilePath(folder) / os.path.expanduser(file)).task
    except SposError:
        return None
