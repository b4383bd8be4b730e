"""What an experiment consists of, read from YAML and checked as a whole.

A step is a command of ``nni-spos``. In it and in tables ``{NAME}`` is the file of a recipe or a
value of the scale, ``{NAME.output}`` the output folder of a recipe, and ``{output}`` that of the
experiment.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import schema

from nni_spos.errors import RecipeError, nearest, unknown
from nni_spos.files.atomic import check_name, unlinked
from nni_spos.files.yaml_files import read_yaml
from nni_spos.recipe.settings import (
    FILE,
    TEXT,
    Rule,
    one_of,
    optional,
    read_settings,
    real,
    setting,
)

NAME = re.compile(r"[a-z][a-z0-9_-]*")
PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_-]*)(\.output)?\}")
OUTPUT = "output"
"""The placeholder that every experiment has."""

KINDS = ("networks", "searches", "generations", "stages", "values")
"""Kinds of tables, see `nni_spos.study.tables`."""

_IS_NAME: Any = schema.And(str, lambda x: NAME.fullmatch(x) is not None)
_SECTIONS = schema.Schema({schema.Optional(str): schema.Or(dict, list, str, None)})
TEXTS = Rule(schema.Schema({schema.Optional(str): TEXT[0]}), "a mapping of names to text")
NUMBERS = Rule(
    schema.Schema({schema.Optional(str): real(0)[0]}),
    "a mapping of names to numbers >= 0",
)
CHANGES = Rule(_SECTIONS, "sections of a recipe, each with the keys to change")
VARIANTS = Rule(
    schema.Schema({schema.Optional(_IS_NAME): schema.Or(None, _SECTIONS)}),
    "a mapping of names to sections of a recipe",
)
VALUES = Rule(
    schema.Schema({schema.Optional(_IS_NAME): schema.Or(str, int, float)}),
    "a mapping of names to text or numbers",
)
NAMES = Rule(schema.Schema([TEXT[0]]), "a list of names")
NAME_RULE = Rule(_IS_NAME, "a name of small letters, digits, _ and -")
SCALES = Rule(schema.Schema({schema.Optional(str): dict}), "a mapping of names to mappings")
MAPPINGS = Rule(schema.Schema([dict]), "a list of mappings")


@dataclass(frozen=True)
class Step:
    """A command of ``nni-spos``; it must go on where an earlier call was cut off."""

    name: str = setting(NAME_RULE)
    run: str = setting(TEXT)
    scales: Sequence[str] | None = setting(optional(NAMES), None)


@dataclass(frozen=True)
class TableRequest:
    """A table of the results: of which kind, and from which files, by the names of its rows."""

    title: str = setting(TEXT)
    kind: str = setting(one_of(*KINDS))
    of: Mapping[str, str] = setting(TEXTS)
    scales: Sequence[str] | None = setting(optional(NAMES), None)


@dataclass(frozen=True)
class Scale:
    """A size of an experiment.

    Its recipes are `variants` of the recipe `base`, after the `changes` that all have in common.
    `minutes` is how long each step is expected to take, `about` on which machine, and how that
    was found.
    """

    about: str = setting(TEXT)
    base: str = setting(FILE)
    variants: Mapping[str, Any] = setting(VARIANTS)
    minutes: Mapping[str, float] = setting(NUMBERS)
    changes: Mapping[str, Any] = setting(CHANGES)
    values: Mapping[str, Any] = setting(VALUES)


_NOTHING: dict[str, Any] = {"changes": {}, "values": {}}
"""Keys of a scale that may be left out."""


@dataclass(frozen=True)
class _StudyFile:
    title: str = setting(TEXT)
    about: str = setting(TEXT)
    output: str = setting(FILE)
    scales: Mapping[str, Any] = setting(SCALES)
    steps: Sequence[Any] = setting(MAPPINGS)
    tables: Sequence[Any] = setting(MAPPINGS)


@dataclass(frozen=True)
class Study:
    """An experiment.

    Parameters
    ----------
    file
        Where it was read; the names of recipes in it are relative to its folder.
    folder
        What the names of outputs and of images are relative to.
    title, about
        What it is, and what of the paper's experiment it is not.
    output
        Folder of all its results; each scale has its own in it.
    scales
        Name to `Scale`.
    steps, tables
        Of all scales; those of one scale are returned by `steps_of` and `tables_of`.
    """

    file: FilePath
    folder: FilePath
    title: str
    about: str
    output: FilePath
    scales: Mapping[str, Scale]
    steps: Sequence[Step]
    tables: Sequence[TableRequest]

    @property
    def name(self) -> str:
        """Name of the file without suffix."""
        return self.file.stem

    def scale(self, name: str) -> Scale:
        """Return a scale by its name. Raises RecipeError."""
        if name not in self.scales:
            raise RecipeError(f"{self.file.name}: {unknown('scale', name, self.scales)}")
        return self.scales[name]

    def steps_of(self, scale: str) -> list[Step]:
        """Return the steps of a scale, in order."""
        return [step for step in self.steps if step.scales is None or scale in step.scales]

    def tables_of(self, scale: str) -> list[TableRequest]:
        """Return the tables of a scale, in order."""
        return [table for table in self.tables if table.scales is None or scale in table.scales]


def load_study(file: str | os.PathLike[str], folder: FilePath | None = None) -> Study:
    """Read and check an experiment; its recipes are checked by `nni_spos.study.make_plan`.

    Parameters
    ----------
    file
        YAML.
    folder
        What the names of outputs and of images are relative to; by default the file's folder.

    Raises
    ------
    RecipeError
        The file is missing or not YAML, a key or value in it is wrong, a step or a scale is named
        that there is not, or a step has no estimate.
    """
    file = unlinked(file)
    check_name(file, RecipeError)
    where, folder = file.name, folder or file.parent
    content = read_settings(_StudyFile, read_yaml(file), where)
    study = Study(
        file=file,
        folder=folder,
        title=content.title,
        about=content.about,
        output=FilePath(os.path.realpath(folder / os.path.expanduser(content.output))),
        scales={
            name: read_settings(Scale, {**_NOTHING, **scale}, f"{where}: scales.{name}")
            for name, scale in content.scales.items()
        },
        steps=[
            read_settings(Step, step, f"{where}: step {number}")
            for number, step in enumerate(content.steps, start=1)
        ],
        tables=[
            read_settings(TableRequest, table, f"{where}: table {number}")
            for number, table in enumerate(content.tables, start=1)
        ],
    )
    _check_names(study)
    for name in study.scales:
        _check_scale(study, name)
    return study


def _check_names(study: Study) -> None:
    """Refuse an experiment without scales or steps, and names that are not its own or twice."""
    where = study.file.name
    if not study.scales or not study.steps:
        raise RecipeError(f"{where}: needs at least one scale and one step.")
    names = [step.name for step in study.steps]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RecipeError(f"{where}: two steps are named '{twice[0]}'.")
    for scales in (item.scales for items in (study.steps, study.tables) for item in items):
        for scale in scales or ():
            study.scale(scale)


def _check_scale(study: Study, name: str) -> None:
    """Refuse placeholders that stand for nothing, and estimates that are not of its steps."""
    where, scale = f"{study.file.name}: scales.{name}", study.scales[name]
    if OUTPUT in {*scale.variants, *scale.values} or set(scale.variants) & set(scale.values):
        raise RecipeError(f"{where}: a name stands for two things in variants and values.")
    names = {step.name for step in study.steps_of(name)}
    for step in sorted(names ^ set(scale.minutes)):
        problem = "has no estimate" if step in names else "is not a step of this scale"
        raise RecipeError(f"{where}.minutes: '{step}' {problem}{nearest(step, names - {step})}.")
    texts = [step.run for step in study.steps_of(name)]
    for text in texts:
        try:
            shlex.split(text)
        except ValueError as problem:
            raise RecipeError(f"{where}: '{text}': {problem}.") from None
    texts += [text for table in study.tables_of(name) for text in table.of.values()]
    known = (*scale.variants, *scale.values, OUTPUT)
    for text in texts:
        _check_placeholders(text, known, scale.variants, where)
    for variant, changes in scale.variants.items():
        _check_variant(variant, changes or {}, scale, f"{where}.variants.{variant}")


def _check_variant(name: str, changes: Mapping[str, Any], scale: Scale, where: str) -> None:
    folder = changes.get(OUTPUT, name)
    if folder not in list(scale.variants):
        raise RecipeError(f"{where}.output: {unknown('variant', folder, scale.variants)}")
    if not isinstance(changes.get("base", scale.base), str):
        raise RecipeError(f"{where}.base: must be the name of a file.")


def _check_placeholders(
    text: str, known: Sequence[str], recipes: Iterable[str], where: str
) -> None:
    for name, output in PLACEHOLDER.findall(text):
        if name not in known or (output and name not in recipes):
            raise RecipeError(
                f"{where}: '{text}': {{{name}{output}}} stands for nothing"
                f"{nearest(name, known) or '.'} Known: {', '.join(known)}."
            )
    if "{" in PLACEHOLDER.sub("", text):
        raise RecipeError(
            f"{where}: '{text}': has a brace that is not of a name such as {{output}}."
        )
