"""Modules that users write and recipes name, found as Python finds those beside a script.

Whether one has changed is said by `nni_spos.code_digest`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path as FilePath
from types import ModuleType

_folders: dict[str, FilePath] = {}
"""Names of loaded modules that were found in a recipe's folder, and that folder."""


def import_user_module(name: str, folder: FilePath | None) -> ModuleType:
    """Import a module, which runs its code.

    Parameters
    ----------
    name
        Dotted name.
    folder
        Where it, and what it imports in turn, is looked for first; only while it is imported.
        Modules of the same names from other folders stay as they are, for those who have them.
        None: look in Python's path alone.

    Raises
    ------
    Exception
        What Python raises for a missing module, or the module's own code.
    """
    if folder is None:
        return importlib.import_module(name)
    _forget_others(_top(name), folder)
    before = set(sys.modules)
    with _first_in_path(folder):
        try:
            return importlib.import_module(name)
        finally:
            for loaded in set(sys.modules) - before:
                # Not what is loaded from a package that was there before, such as this one.
                is_new = _top(loaded) in _folders or _top(loaded) not in before
                if is_new and _find(_top(loaded), folder) is not None:
                    _folders[loaded] = folder


def _top(name: str) -> str:
    return name.partition(".")[0]


def _find(top: str, folder: FilePath) -> ModuleSpec | None:
    return PathFinder.find_spec(top, [str(folder)]) if top else None


def _forget_others(top: str, folder: FilePath) -> None:
    """Take from Python's list of loaded modules those that would hide ones of the folder."""
    importlib.invalidate_caches()  # the folder's files may be newer than what Python knows of it
    found = _find(top, folder)
    loaded = sys.modules.get(top)
    hides = found is not None and getattr(loaded, "__file__", None) != found.origin
    for module in list(sys.modules):
        if _folders.get(module, folder) != folder or (hides and _top(module) == top):
            del sys.modules[module]
            _folders.pop(module, None)


@contextlib.contextmanager
def _first_in_path(folder: FilePath) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module's code may have changed the path
            sys.path.remove(entry)
