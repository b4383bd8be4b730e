"""Tell whether the code of a user's space has changed, without running any of it.

What counts is what the space's module is made of: its own file, and those that it imports from the
recipe's folder or from a folder in Python's path, in turn. Comments, docstrings and the layout of
the code do not count; neither do installed packages that a module imports. Files that the code
reads are not followed.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path as FilePath

from nni_spos.files.digests import DIGITS
from nni_spos.process.user_modules import look_at_folders_again

_PARSING = threading.Lock()
"""Python 3.11's parser can fail in two threads at once
(https://github.com/python/cpython/issues/106905).
"""

OWN = "nni_spos"
"""This package: it has versions."""

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages that are installed."""

DYNAMIC = {"importlib", "runpy", "pkgutil", "imp"}
"""Modules with which code imports what it does not name in an import statement."""

RUNNERS = {"__import__", "exec", "eval"}
"""Functions that do so as well."""

UNIMPORTANT = ("ctx", "kind", "type_comment")
"""Fields of a syntax tree that say nothing more."""


def digest_space_code(name: str, folder: FilePath) -> str | None:
    """Return the digest of the code of a user's space ``module:Class``; None for one of ours.

    Parameters
    ----------
    name
        Name of the space, as in a recipe.
    folder
        Where its module is looked for first.
    """
    module, colon, _ = name.partition(":")
    return digest_code(module, folder) if colon else None


def digest_code(name: str, folder: FilePath) -> str:
    """Return a digest of the code that a module is made of.

    Parameters
    ----------
    name
        Dotted name.
    folder
        Where the module, and what it imports, is looked for first.
    """
    look_at_folders_again()
    digest = hashlib.sha256()
    for where, file in _Sources(name, folder).find():
        for part in (where.encode(), _meaning(file)):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:DIGITS]


class _Sources:
    """The files of a module.

    Parameters
    ----------
    name, folder
        See `digest_code`.
    """

    def __init__(self, name: str, folder: FilePath):
        self._name = name
        self._folder = folder
        self._top = name.partition(".")[0]
        self._specs: dict[str, ModuleSpec | None] = {}
        paths = [sysconfig.get_path(x) for x in ("stdlib", "platstdlib")]
        self._stdlib = tuple(path + os.sep for path in paths)

    def find(self) -> list[tuple[str, FilePath]]:
        """Return names and files in order; the names do not depend on where the folder is."""
        found: dict[str, FilePath] = {}
        waiting, seen = list(_prefixes(self._name)), set()
        is_dynamic = False
        while waiting:
            name = waiting.pop()
            spec = None if name in seen else self._own_spec(name)
            seen.add(name)
            file = None if spec is None else _file(spec)
            if spec is None or file is None:
                continue
            found[name] = file
            if (tree := _tree(file)) is not None:
                is_package = spec.submodule_search_locations is not None
                waiting += _imports(tree, name if is_package else name.rpartition(".")[0])
                is_dynamic = is_dynamic or _is_dynamic(tree)
        if is_dynamic:  # then it may import anything that is there
            found |= dict(self._all())
        return sorted(found.items())

    def _own_spec(self, name: str) -> ModuleSpec | None:
        """Return where a module is, or None if it is not one of the user's."""
        spec = self._spec(name)
        top = name.partition(".")[0]
        if spec is None or top == self._top:
            return spec
        return None if top == OWN or self._is_installed(spec) else spec

    def _spec(self, name: str) -> ModuleSpec | None:
        """Find a module as Python does, without importing the packages that it is in."""
        if name not in self._specs:
            parent, _, last = name.rpartition(".")
            spec = None
            if last and not parent:
                spec = self._top_spec(last)
            elif last and (outer := self._spec(parent)) is not None:
                places = outer.submodule_search_locations
                spec = None if places is None else PathFinder.find_spec(name, list(places))
            self._specs[name] = spec
        return self._specs[name]

    def _top_spec(self, name: str) -> ModuleSpec | None:
        if (found := PathFinder.find_spec(name, [str(self._folder)])) is not None:
            return found
        for finder in sys.meta_path:  # also those of packages that are installed to be edited
            with contextlib.suppress(Exception):
                if (found := finder.find_spec(name, None)) is not None:
                    return found
        return None

    def _is_installed(self, spec: ModuleSpec) -> bool:
        places = [spec.origin] if spec.has_location else spec.submodule_search_locations
        return all(  # what is nowhere is a part of the interpreter
            INSTALLED & set(FilePath(str(x)).parts) or str(x).startswith(self._stdlib)
            for x in places or ()
        )

    def _all(self) -> Iterator[tuple[str, FilePath]]:
        """Yield everything in the folder and in the module's own package."""
        yield from _walk(self._folder)
        spec = self._spec(self._top)
        for package in (spec and spec.submodule_search_locations) or ():
            yield from _walk(FilePath(package))


def _walk(root: FilePath) -> Iterator[tuple[str, FilePath]]:
    """Yield the Python files of a folder, and of those in it that have some, in turn."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        files = [x for x in entries if x.name.endswith(".py") and x.is_file()]
        for entry in files:
            yield os.path.relpath(entry.path, root), FilePath(entry.path)
        if files or folder == root:
            inner = [x for x in entries if x.name.isidentifier()]
            waiting += [FilePath(x.path) for x in inner if x.is_dir(follow_symlinks=False)]


def _file(spec: ModuleSpec) -> FilePath | None:
    if not (spec.has_location and spec.origin):
        return None
    file = FilePath(spec.origin)
    return file if file.is_file() else None


def _prefixes(name: str) -> Iterator[str]:
    """Yield a module's name, after those of the packages that it is in."""
    words = name.split(".")
    for count in range(1, len(words) + 1):
        yield ".".join(words[:count])


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the names of the modules that code may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _prefixes(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                words = package.split(".")
                outer = ".".join(words[: len(words) - node.level + 1])
                base = f"{outer}.{base}" if base else outer
            yield from _prefixes(base)
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _is_dynamic(tree: ast.AST) -> bool:
    """Whether code may import modules whose names are not in its import statements."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.partition(".")[0] in DYNAMIC for name in names):
            return True
        if isinstance(node, ast.Name) and node.id in RUNNERS:
            return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.path":
            return True
    return False


def _tree(file: FilePath) -> ast.Module | None:
    """Parse a Python file; None for another kind of file, or what cannot be parsed."""
    if file.suffix != ".py":
        return None
    try:
        with _PARSING:
            return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _meaning(file: FilePath) -> bytes:
    """Return what a file says to Python, or its bytes if it cannot be parsed."""
    tree = _tree(file)
    if tree is not None:
        with contextlib.suppress(RecursionError):
            return "".join(_words(tree)).encode("utf-8", "surrogatepass")
    return file.read_bytes()


def _words(node: object) -> Iterator[str]:
    """Yield a syntax tree as text, the same in all versions of Python that can parse it.

    Fields that are empty are left out: later versions have more of them.
    """
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(value, list):
                value = _without_docstring(node, value)
            if value is not None and value != [] and name not in UNIMPORTANT:
                yield f" {name}="
                yield from _words(value)
            elif isinstance(node, ast.Constant) and name == "value":
                yield f" {value!r}"
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _words(item)
        yield "]"
    else:
        yield f" {node!r}"


def _without_docstring(node: ast.AST, body: list[ast.stmt]) -> list[ast.stmt]:
    with_docstring = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    first = body[0] if body and isinstance(node, with_docstring) else None
    value = first.value if isinstance(first, ast.Expr) else None
    is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return body[1:] if is_text else body
