"""Import the modules of users that recipes name, from the recipe's folder first.

`nni_spos.recipe.code_digest` tells whether one has changed.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path as FilePath
from types import FrameType, ModuleType

_folders: dict[str, FilePath] = {}
"""Names of loaded modules that were found in a recipe's folder, and that folder."""

_LOOKING = threading.Lock()
"""`importlib.invalidate_caches` can fail in two threads at once, with a KeyError."""


def import_user_module(name: str, folder: FilePath | None) -> ModuleType:
    """Import a module, which runs its code.

    Parameters
    ----------
    name
        Dotted name.
    folder
        Where it is looked for first, and what the code of this folder imports in turn; only while
        it is imported, and not for what libraries import.
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
    finder = _Neighbours(folder)
    with _first_in_path(finder):
        try:
            return importlib.import_module(name)
        finally:
            for loaded in set(sys.modules) - before:
                if _top(loaded) in finder.found:
                    _folders[loaded] = folder


def look_at_folders_again() -> None:
    """Let Python see files that are newer than what it knows of their folders."""
    with _LOOKING:
        importlib.invalidate_caches()


def folder_of_user(problem: BaseException) -> FilePath | None:
    """Return the recipe's folder whose code an error has come through; None if through none."""
    for frame, _ in traceback.walk_tb(problem.__traceback__):
        folder = _folders.get(frame.f_globals.get("__name__", ""))
        if folder is not None:
            return folder
    return None


class _Neighbours(MetaPathFinder):
    """Finds the modules of a folder, for the code of that folder alone.

    Libraries that are imported meanwhile import others, some of which may be missing: a file of
    such a name in the folder is not what they mean.

    Parameters
    ----------
    folder
        Of the recipe.
    """

    def __init__(self, folder: FilePath):
        self._folder = folder
        self.found: set[str] = set()
        """Names of modules and packages that came from the folder."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module or package; what is in a package is found by that."""
        if path is not None or not self._is_asked_by_its_own():
            return None
        spec = _find(fullname, self._folder)
        # A folder without an __init__.py counts if there is nothing else of its name.
        if spec is None or (spec.loader is None and PathFinder.find_spec(fullname) is not None):
            return None
        self.found.add(fullname)
        return spec

    def _is_asked_by_its_own(self) -> bool:
        """Whether the import is one of the folder's code, or that of the recipe's module."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            importer = frame.f_globals.get("__name__", "")
            is_machinery = frame.f_code.co_filename.startswith("<frozen importlib")
            if not is_machinery and importer != "importlib":
                is_loaded = _folders.get(importer) == self._folder
                return importer == __name__ or is_loaded or _top(importer) in self.found
            frame = frame.f_back
        return False


def _top(name: str) -> str:
    return name.partition(".")[0]


def _find(top: str, folder: FilePath) -> ModuleSpec | None:
    return PathFinder.find_spec(top, [str(folder)]) if top else None


def _forget_others(top: str, folder: FilePath) -> None:
    """Take from Python's list of loaded modules those that would hide ones of the folder."""
    look_at_folders_again()
    found = _find(top, folder)
    loaded = sys.modules.get(top)
    hides = found is not None and getattr(loaded, "__file__", None) != found.origin
    for module in list(sys.modules):
        if _folders.get(module, folder) != folder or (hides and _top(module) == top):
            del sys.modules[module]
            _folders.pop(module, None)


@contextlib.contextmanager
def _first_in_path(finder: _Neighbours) -> Iterator[None]:
    """Let a finder be asked before those that look in Python's path."""
    place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0
    sys.meta_path.insert(place, finder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module's code may have changed the list
            sys.meta_path.remove(finder)
