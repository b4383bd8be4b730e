"""Experiments by their names."""

from __future__ import annotations

from pathlib import Path as FilePath

from nni_spos.errors import RecipeError, unknown
from nni_spos.files.yaml_files import is_yaml_name
from nni_spos.project.examples import examples_folder
from nni_spos.study.description import Study, load_study

FOLDER = "paper"
"""Their folder among the examples."""


def list_studies() -> list[Study]:
    """Return the experiments that have names. Raises RecipeError if one is not valid."""
    return [_load(file) for file in _files().values()]


def find_study(name_or_file: str) -> Study:
    """Return an experiment by its name, or that of a file.

    A named one may be in an installed package. Its results and images are in the current folder, as
    if the examples were there: ``runs/paper`` and ``data``.

    Raises
    ------
    RecipeError
        There is none of this name, with the nearest; or see `load_study`.
    """
    if is_yaml_name(name_or_file):
        return load_study(name_or_file)
    files = _files()
    if name_or_file not in files:
        raise RecipeError(unknown("experiment", name_or_file, files))
    return _load(files[name_or_file])


def _load(file: FilePath) -> Study:
    return load_study(file, FilePath.cwd() / "examples" / FOLDER)


def _files() -> dict[str, FilePath]:
    return {file.stem: file for file in sorted((examples_folder() / FOLDER).glob("*.yml"))}
