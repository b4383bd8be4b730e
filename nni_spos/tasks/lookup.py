"""The task that results were recorded with, and how these are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from nni_spos.components import is_of_user
from nni_spos.errors import SposError
from nni_spos.recipe.registries import TASKS
from nni_spos.recipe.task import TaskSettings, find_task
from nni_spos.tasks.base import LOSS, Figure, Task, plain_figure


def recorded_task(description: Any) -> Task | None:
    """Return the task that a file describes, see `nni_spos.recipe.identity`.

    None for a task of a user's, which is not imported on a file's word, and for what is no
    description.

    >>> recorded_task({"name": "classification", "topk": [1, 3]}).figures[1].title
    'top-3 accuracy'
    """
    if not isinstance(description, Mapping) or not isinstance(description.get("name"), str):
        return None
    name = description["name"]
    if is_of_user(name) or name not in TASKS:
        return None
    arguments = {key: value for key, value in description.items() if key != "name"}
    with contextlib.suppress(SposError):  # of another version, or of a plug-in that does not load
        return find_task(TaskSettings(name, arguments))
    return None


def result_title(name: str) -> str:
    """Return what an axis or a column of a figure of ours is called; else its name.

    >>> result_title("top1"), result_title("r2"), result_title("my_figure")
    ('top-1 accuracy (%)', 'R2', 'my_figure')
    """
    for task in (find_task(TaskSettings(x)) for x in TASKS.ours):
        if name in [x.name for x in task.all_figures]:
            return str(task.figure(name).full_title)
    return name


def figure_of(made_for: Any, name: str) -> Figure:
    """Return how a figure is shown, of results whose description is `made_for`."""
    task = recorded_task(made_for.get("task")) if isinstance(made_for, Mapping) else None
    return task.figure(name) if task else plain_figure(name)


def main_figure(made_for: Any, figures: Mapping[str, float]) -> Figure:
    """Return the figure that counts most: the objective of the task, or else the first.

    Parameters
    ----------
    made_for
        What results depend on, as their file says.
    figures
        By name.
    """
    task = recorded_task(made_for.get("task")) if isinstance(made_for, Mapping) else None
    if task is not None and task.objective in figures:
        return task.figure(task.objective)
    return plain_figure(next((name for name in figures), LOSS.name))


def describe_figures(made_for: Any, figures: Mapping[str, float]) -> str:
    """Return all figures in a line.

    >>> describe_figures({"task": {"name": "classification"}}, {"top1": 71.5, "loss": 1.25})
    'top-1 71.50 %, loss 1.2500'
    """
    shown = ((figure_of(made_for, name), value) for name, value in figures.items())
    return ", ".join(f"{x.brief} {x.format(value)}" for x, value in shown)
