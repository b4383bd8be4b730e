"""Write a new project: an example with its files side by side, and a page that says what to run."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import ProjectError, unknown
from nni_spos.files.atomic import check_name, read_text, write_text
from nni_spos.files.yaml_files import parse_yaml
from nni_spos.project.examples import EXAMPLES, Example, examples_folder
from nni_spos.project.readme import readme

CONFIG, RECIPE, SPACE, OUTPUT = "spos.yml", "recipe.yml", "search_space.json", "output"
"""Names in every project."""

MAX_BYTES = 1 << 20
"""Largest file of an example."""


@dataclass(frozen=True)
class Project:
    """A project that was written.

    Parameters
    ----------
    folder
        Where it is.
    example
        What it began with.
    commands
        What to run next, in this order, in the folder.
    """

    folder: FilePath
    example: Example
    commands: Sequence[str]


def new_project(folder: str | os.PathLike[str], name: str = "digits") -> Project:
    """Write an example into a new or an empty folder.

    All files are written to a temporary folder first, so that an error leaves nothing behind.

    Parameters
    ----------
    folder
        Made with the folders above it, unless it is there.
    name
        Of the example, see `EXAMPLES`.

    Raises
    ------
    ProjectError
        There is no such example, or something is in the folder already.
    OSError
        The folder cannot be written.
    """
    check_name(folder, ProjectError)
    example = find_example(name)
    target = FilePath(folder).absolute()
    _check_free(target, os.fspath(folder))
    contents = project_files(example)
    commands = next_commands(example)
    title = target.name or "project"
    contents["README.md"] = readme(title, example, list(contents), commands)
    _write_together(target, contents)
    return Project(FilePath(folder), example, commands)


def find_example(name: str) -> Example:
    """Return an example by its name. Raises ProjectError, which names the nearest and all."""
    if name not in EXAMPLES:
        raise ProjectError(unknown("example", name, EXAMPLES))
    return EXAMPLES[name]


def project_files(example: Example) -> dict[str, str]:
    """Return the files of a project by name, except its page: the example's, without folders."""
    config_text = _read(example.file)
    config = parse_yaml(config_text)
    given, space = config["tuner"]["classArgs"]["recipe"], config["searchSpaceFile"]
    recipe_file = example.file.parent / given
    recipe_text = _read(recipe_file)
    recipe = parse_yaml(recipe_text)
    renamed = {
        f"examples/{os.path.relpath(recipe_file, examples_folder())}": RECIPE,
        f"examples/{example.config}": CONFIG,
        given: RECIPE,
        space: SPACE,
        recipe["output"]: OUTPUT,
        "../../data/": "data/",
    }
    folder = os.path.dirname(example.config)
    renamed |= {f"examples/{folder}/{name}": name for name in example.beside}
    if example.name == "image_folder":  # the only data of the project
        renamed["../../data/image_folder"] = "data"
    files = {
        RECIPE: _rename(recipe_text, renamed),
        CONFIG: _rename(config_text, renamed),
        SPACE: _read(example.file.parent / space),
    }
    for module in (*_modules(recipe), *example.beside):
        files[module] = _read(recipe_file.with_name(module))
    return files


def next_commands(example: Example) -> list[str]:
    """Return what to run in the folder of a project, from the check to the network."""
    public = " --public" if example.name == "remote" else ""
    return [
        f"nni-spos check {CONFIG}",
        f"nni-spos train {RECIPE}",
        f"nni-spos start {CONFIG}{public} --output best.json",
        f"nni-spos retrain {RECIPE} --path best.json",
    ]


def _check_free(target: FilePath, given: str) -> None:
    """Refuse a folder with something in it, and what is no folder. Raises ProjectError."""
    if target.is_dir():
        if any(target.iterdir()):
            raise ProjectError(f"{given}: the folder is not empty. Give a new or an empty folder.")
    elif os.path.lexists(target):
        raise ProjectError(f"{given}: is not a folder. Give a new or an empty folder.")


def _modules(recipe: dict[str, Any]) -> list[str]:
    """Return the files of a user's space, network and data set, which are beside the recipe."""
    sections = [recipe[x] for x in ("space", "model", "data") if x in recipe]
    names = (section["name"].partition(":") for section in sections)
    return list(dict.fromkeys(f"{module}.py" for module, colon, _ in names if colon))


def _read(file: FilePath) -> str:
    return read_text(file, ProjectError, MAX_BYTES)


def _rename(text: str, renamed: dict[str, str]) -> str:
    """Replace the names of files; a name that is a part of another is replaced after it."""
    for before in sorted(renamed, key=len, reverse=True):
        text = text.replace(before, renamed[before])
    return text


def _write_together(target: FilePath, contents: dict[str, str]) -> None:
    """Write all files of a folder, or none."""
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    moved: list[FilePath] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new.", dir=target) as place:
            for name, text in contents.items():
                write_text(FilePath(place) / name, text.rstrip("\n"))
            for name in contents:
                os.rename(FilePath(place) / name, target / name)
                moved.append(target / name)
    except BaseException:
        for file in moved:
            file.unlink()
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
