"""Experiments by their names."""

from __future__ import annotations

from pathlib import Path as FilePath

from nni_spos.errors import RecipeError, nearest
from nni_spos.study.description import Study, load_study
from nni_spos.yaml_files import is_yaml_name

FOLDER = FilePath("examples") / "paper"
"""Where they are looked for: from the current folder, then beside the package."""

_CHECKOUT = FilePath(__file__).parents[2]


def list_studies() -> list[Study]:
    """Return the experiments that have names. Raises RecipeError if one is not valid."""
    return [load_study(file) for file in _files().values()]


def find_study(name_or_file: str) -> Study:
    """Return an experiment by its name, or that of a file.

    Raises
    ------
    RecipeError
        There is none of this name, with the nearest; or see `load_study`.
    """
    if is_yaml_name(name_or_file):
        return load_study(name_or_file)
    files = _files()
    if name_or_file not in files:
        known = f"Experiments: {', '.join(files)}." if files else f"There is no folder {FOLDER}."
        raise RecipeError(
            f"unknown experiment '{name_or_file}'{nearest(name_or_file, files) or '.'} {known}"
        )
    return load_study(files[name_or_file])


def _files() -> dict[str, FilePath]:
    for root in (FilePath.cwd(), _CHECKOUT):
        if files := sorted((root / FOLDER).glob("*.yml")):
            return {file.stem: file for file in files}
    return {}
