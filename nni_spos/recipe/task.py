"""What a recipe says about its task, and how that is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from nni_spos.components import declared_keys
from nni_spos.errors import RecipeError, SposError, unknown
from nni_spos.recipe.registries import TASKS
from nni_spos.recipe.settings import check_settings
from nni_spos.values import is_plain, shown


@dataclass(frozen=True)
class TaskSettings:
    """What a network is to predict: a name, with the keys of that task.

    Parameters
    ----------
    name
        One of ours, such as classification, of a plug-in, or module:Class.
    arguments
        Keys of the task, as the recipe has them.
    folder
        Of the recipe, where a user's module is looked for first.
    """

    name: str = "classification"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    folder: FilePath | None = field(default=None, compare=False)

    def deciding(self) -> dict[str, Any]:
        """Return what results depend on.

        Of ours a default is as if it were written down; the defaults of others stand in their code.
        """
        if self.name not in TASKS.ours:
            return {"name": self.name, **self.arguments}
        task = find_task(self)
        values = {x.name: getattr(task, x.name) for x in dataclasses.fields(task) if x.metadata}
        return {"name": self.name, **{k: v if is_plain(v) else list(v) for k, v in values.items()}}


OF_TARGETS = {
    "class": "classification",
    "labels": "multilabel",
    "values": "regression",
    "mask": "segmentation",
}
"""Which of our tasks is for which kind of targets."""


def read_task(content: Any, where: str, folder: FilePath | None) -> TaskSettings:
    """Read the section ``task``: a name, or a mapping with a name and keys; None for the default.

    Keys of ours are checked. Those of others are checked when the task is found: to know them, code
    of the user would have to be run.

    Raises
    ------
    RecipeError
        It is neither, there is no such task, it has not such a key, or a value is wrong.
    """
    found = {"name": content} if isinstance(content, str) else content
    found = {"name": TaskSettings.name} if found is None else found
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise RecipeError(
            f"{where}: must be a name such as classification, or a mapping with the key 'name', "
            f"got {shown(content)}."
        )
    arguments = {key: value for key, value in found.items() if key != "name"}
    settings = TaskSettings(found["name"], arguments, folder)
    try:
        TASKS.check_name(settings.name)
        if settings.name in TASKS.ours:
            find_task(settings)
    except RecipeError as problem:
        raise RecipeError(f"{where}: {problem}") from None
    return settings


def find_task(settings: TaskSettings) -> Any:
    """Return the task that a recipe names; of a user's, this runs its module.

    Returns
    -------
    An `nni_spos.tasks.base.Task`.

    Raises
    ------
    RecipeError
        There is no such task, it cannot be imported, it has not such a key, or a value is wrong.
    """
    name = settings.name
    cls = TASKS.load_ours(name) if name in TASKS.ours else TASKS.find(name, settings.folder)
    keys = declared_keys(cls)
    if strange := [key for key in settings.arguments if key not in keys]:
        raise RecipeError(f"task {name}: {unknown('key', strange[0], keys)}")
    given = check_settings(cls, settings.arguments, f"task {name}")
    try:
        with TASKS.explained(name, settings.folder):
            return cls(**given)
    except SposError as problem:
        text = str(problem)
        raise RecipeError(text if text.startswith("task ") else f"task {name}: {text}") from None
