"""Which Python files an experiment could run that its configuration does not name."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from importlib.machinery import all_suffixes
from pathlib import Path as FilePath
from typing import Any

from nni_spos.errors import RecipeError

OWN = FilePath(__file__).parents[1]
"""This package."""

NUM_NAMED = 10
"""Files that a warning names."""


def check_code_directory(folder: FilePath, name: str) -> None:
    """Refuse a folder with another ``nni_spos``, which NNI may take for this one.

    Parameters
    ----------
    folder
        The tuner's `codeDirectory`.
    name
        Of the configuration.

    Raises
    ------
    RecipeError
        There is one.
    """
    for file in modules(folder):
        if file.name.partition(".")[0] == OWN.name and not (file.is_dir() and file.samefile(OWN)):
            raise RecipeError(
                f"{name}: tuner.codeDirectory: {file} has the name of this package. Give a folder "
                "without it."
            )


def reachable_warnings(config: Mapping[str, Any], name: str) -> list[str]:
    """Return a sentence about files that Python finds before those that are meant, if there are.

    ``python SCRIPT`` looks for every module first beside the script, and ``python -m MODULE`` in
    the working directory; ``nni-spos trial`` in neither.

    Parameters
    ----------
    config
        The configuration as NNI reads it.
    name
        Of the configuration.
    """
    service = config["trainingService"]
    folder = FilePath(service["trialCodeDirectory"])
    script = _script(service.get("trialCommand") or config["trialCommand"])
    if script is None:
        return []
    folder = (folder / os.path.expanduser(script)).parent if script else folder
    found = [x.name for x in modules(folder) if x.name != os.path.basename(script)]
    if not found:
        return []
    more = f" and {len(found) - NUM_NAMED} more" if len(found) > NUM_NAMED else ""
    return [
        f"{name}: trialCommand: Python looks for every module in {folder} first, also for those "
        f"that libraries try to import. There are {', '.join(found[:NUM_NAMED])}{more}."
    ]


def modules(folder: FilePath) -> list[FilePath]:
    """Return the files and packages of a folder that Python can import, in order."""
    suffixes = tuple(all_suffixes())
    try:
        files = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        file
        for file in files
        if (file.is_dir() and any((file / f"__init__{x}").exists() for x in suffixes))
        or (file.is_file() and file.name.endswith(suffixes))
    ]


def _script(command: str) -> str | None:
    """Return the script that a command gives to Python, ``""`` for ``-m``; None without either.

    >>> _script("OMP_NUM_THREADS=1 python3 -W ignore my_trial.py digits.yml")
    'my_trial.py'
    >>> _script("python3.11 -m nni_spos.cli trial digits.yml")
    ''
    >>> _script("nni-spos trial digits.yml")
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    is_python = False
    for word in words:
        is_python = is_python or os.path.basename(word).startswith("python")
        if is_python and word == "-m":
            return ""
        if is_python and word.endswith(".py"):
            return word
    return None
