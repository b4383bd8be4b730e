"""What is to be done in an experiment, and what is done already."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import ExperimentError, RecipeError, unknown
from nni_spos.files.atomic import read_json
from nni_spos.recipe.identity import IMAGES, TEST_IMAGES, Result, describe
from nni_spos.recipe.recipe import Recipe, check_recipe
from nni_spos.study.description import OUTPUT, PLACEHOLDER, Scale, Step, Study
from nni_spos.study.recipes import Content, merge_recipes
from nni_spos.values import changes

STEPS = "steps"
"""Folder of what is known about finished steps, in the experiment's output folder."""

RECIPES = "recipes"
"""Folder of the recipes, in the experiment's output folder."""


@dataclass(frozen=True)
class PlannedStep:
    """A step with everything filled in.

    Parameters
    ----------
    name
        As in the experiment's file.
    arguments
        Of ``nni-spos``.
    minutes
        That it is expected to take.
    made_for
        What its result depends on, as JSON values.
    record
        The file that a finished step leaves.
    """

    name: str
    arguments: Sequence[str]
    minutes: float
    made_for: Mapping[str, Any]
    record: FilePath

    @property
    def command(self) -> str:
        """The command as one would type it."""
        return shlex.join(["nni-spos", *self.arguments])

    @property
    def seconds(self) -> float | None:
        """How long the step took; None if it is not done.

        Raises
        ------
        ExperimentError
            It was done with other settings.
        """
        return _seconds(self.record, self.made_for)


@dataclass(frozen=True)
class Plan:
    """An experiment at one scale, in one folder.

    Parameters
    ----------
    study, scale
        Which experiment, and the name of its scale.
    output
        Folder of the results.
    overrides
        Changes of all recipes that were asked for.
    contents, recipes
        The recipes by name, as YAML values and checked.
    steps
        In order.
    """

    study: Study
    scale: str
    output: FilePath
    overrides: Sequence[Content]
    contents: Mapping[str, Content]
    recipes: Mapping[str, Recipe]
    steps: Sequence[PlannedStep]

    def fill(self, text: str) -> str:
        """Return a text with its placeholders filled in."""
        return _fill(text, self.study.scale(self.scale), self.recipes, self.output)

    def select(self, names: Sequence[str]) -> list[PlannedStep]:
        """Return the steps of these names, in order; without names all. Raises RecipeError."""
        known = [step.name for step in self.steps]
        for name in names:
            if name not in known:
                raise RecipeError(
                    f"{self.study.file.name}: scales.{self.scale}: {unknown('step', name, known)}"
                )
        return [step for step in self.steps if not names or step.name in names]


def make_plan(
    study: Study,
    scale_name: str,
    overrides: Sequence[Content] = (),
    output: FilePath | None = None,
) -> Plan:
    """Check the recipes of an experiment and see what is done; nothing is written.

    Parameters
    ----------
    study, scale_name
        What to plan.
    overrides
        Changes of all recipes, as `nni_spos.study.recipes.read_override` returns them.
    output
        Folder of the results; by default the experiment's, with a folder for each scale.

    Raises
    ------
    RecipeError, ConstraintError
        There is no such scale, or a recipe is not valid.
    ExperimentError
        A step was done with other settings.
    """
    scale = study.scale(scale_name)
    output = FilePath(os.path.realpath(output or study.output / scale_name))
    contents = merge_recipes(study, scale_name, overrides, output)
    recipes = {}
    for name, content in contents.items():
        try:
            recipes[name] = check_recipe(content, output / RECIPES / f"{name}.yml")
        except RecipeError as problem:
            raise RecipeError(f"{study.file.name}: scales.{scale_name}: {problem}") from None
    steps = [
        _plan_step(step, scale, contents, recipes, output) for step in study.steps_of(scale_name)
    ]
    for planned in steps:
        _ = planned.seconds  # what was done with other settings is refused
    return Plan(study, scale_name, output, overrides, contents, recipes, steps)


def _plan_step(
    step: Step,
    scale: Scale,
    contents: Mapping[str, Content],
    recipes: Mapping[str, Recipe],
    output: FilePath,
) -> PlannedStep:
    names = [name for name, _ in PLACEHOLDER.findall(step.run)]
    made_for = {
        "run": step.run,
        "values": {name: scale.values[name] for name in names if name in scale.values},
        "recipes": {
            # Folders are left out, so that a finished experiment can be moved.
            name: describe(Result.STEP, recipes[name])
            for name in names
            if name in recipes
        },
    }
    return PlannedStep(
        step.name,
        # Split first: a folder's name may have spaces.
        [_fill(word, scale, recipes, output) for word in shlex.split(step.run)],
        scale.minutes[step.name],
        made_for,
        output / STEPS / f"{step.name}.json",
    )


def _fill(text: str, scale: Scale, recipes: Mapping[str, Recipe], output: FilePath) -> str:
    known = {OUTPUT: str(output), **{name: str(value) for name, value in scale.values.items()}}
    for name, recipe in recipes.items():
        known |= {name: str(recipe.file), f"{name}.output": str(recipe.output)}
    return PLACEHOLDER.sub(lambda match: known[match[0][1:-1]], text)


def _seconds(record: FilePath, made_for: Mapping[str, Any]) -> float | None:
    """Return how long a finished step took, or None. Raises ExperimentError."""
    if not record.exists():
        return None
    content = read_json(record, ExperimentError)
    try:
        seconds, before = float(content["seconds"]), dict(content["made_for"])
        recipes = {name: dict(parts) for name, parts in before.pop("recipes").items()}
    except (KeyError, TypeError, ValueError):
        raise ExperimentError(f"{record}: is damaged. Delete it to do the step again.") from None
    if found := _changes(before, recipes, made_for):
        raise ExperimentError(
            f"{record}: the step was done with other settings ({found}). Give another "
            f"--output, or delete {record.parents[1]}."
        )
    return seconds


def _changes(
    before: Mapping[str, Any], recipes: Mapping[str, Any], made_for: Mapping[str, Any]
) -> str:
    """Return what differs between a finished step and today's, for a message; "" if nothing."""
    rest = {key: value for key, value in made_for.items() if key != "recipes"}
    found = [changes(before, rest)]
    for name, parts in made_for["recipes"].items():
        recorded = recipes.get(name, {})
        # Images may have been downloaded by the step.
        now = {x: parts[x] for x in parts if x in recorded or x not in (IMAGES, TEST_IMAGES)}
        found.append(changes(recorded, now))
    return "; ".join(filter(None, found))
