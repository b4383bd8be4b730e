"""One way to name a component in a recipe: ours by name, an installed plug-in's, or module:Class.

A *component* is something that a recipe chooses by its name: a space, a data set, a metric, a
prior, a search. There is a `Registry` for each kind. A new one of ours is a new file and a line of
its registry. Whoever has one of their own names it ``module:Class`` after a module beside the
recipe, or installs it as a plug-in: a package with an entry point, whose name is then known too.

A component declares its keys where it stands, see `declared_keys`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path as FilePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from nni_spos.errors import RecipeError, SposError, nearest, unknown
from nni_spos.process.user_modules import import_user_module

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")

USERS = "module:Class"
"""How a recipe names a component that is neither ours nor a plug-in's."""


@dataclass(frozen=True)
class Key:
    """A key that a recipe may give a component.

    Parameters
    ----------
    name
        Of the key.
    default
        Its value if a recipe does not give it; `dataclasses.MISSING` if a recipe must.
    rule
        What it takes, in words; "" if nothing says so.
    description
        What it is, in one line; "" if nothing says so.
    schema
        What it takes, as JSON Schema; empty where that cannot say it.
    """

    name: str
    default: Any
    rule: str = ""
    description: str = ""
    schema: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_required(self) -> bool:
        """Whether a recipe must give it."""
        return self.default is MISSING


class Registry(Generic[T]):
    """Components of one kind, by name.

    Parameters
    ----------
    kind
        In the singular, for messages: ``data set``.
    ours
        Name to ``package.module:Name``. A module is imported when one of its names is found.
    group
        Group of the entry points of plug-ins: ``nni_spos.datasets``.
    base
        The class that every component of this kind is derived from: ``package.module:Name``.

    Examples
    --------
    >>> kinds = Registry("number", {"whole": "numbers:Integral"}, "none", base="numbers:Number")
    >>> kinds.find("whole")
    <class 'numbers.Integral'>
    """

    also = USERS
    """What else is a name."""

    def __init__(self, kind: str, ours: Mapping[str, str], group: str, *, base: str):
        self.kind = kind
        self.ours = dict(ours)
        self.group = group
        self.base = base

    def __contains__(self, name: object) -> bool:
        """Whether a name is one of ours or of a plug-in; nothing is imported."""
        return name in self.ours or name in self._plugins()

    def names(self) -> list[str]:
        """Return the names of ours, then those of installed plug-ins; nothing is imported."""
        return list(dict.fromkeys([*self.ours, *sorted(self._plugins())]))

    def families(self) -> dict[str, T]:
        """Return components of which many have names with one prefix, ``prefix:``, and keys."""
        return {}

    def check_name(self, name: str) -> None:
        """Refuse a name that cannot be one of a component, without importing anything.

        Raises
        ------
        RecipeError
            It is neither ``module:Class`` nor the name of one of ours or of a plug-in, or of
            several.
        """
        # Of ours without a look at plug-ins: every trial reads its recipe, and must start soon.
        if name in self.ours or is_of_user(name):
            return
        self._check_clash(name)
        if name not in self:
            raise RecipeError(unknown(self.kind, name, self.names(), also=self.also))

    def find(self, name: str, folder: FilePath | None = None) -> T:
        """Import a component and return it.

        Parameters
        ----------
        name
            Of one of ours, or of an installed plug-in, or ``module:Class``: only name what you
            trust, importing runs its code.
        folder
            The recipe's, where a user's module is looked for before Python's path is.

        Raises
        ------
        RecipeError
            There is no such component, there are several of this name, it cannot be imported, or it
            is of another kind.
        """
        self.check_name(name)
        if name in self.ours:
            self._check_clash(name)
            return self.load_ours(name)
        if is_of_user(name):
            module, found = self._find_users(name, folder)
        else:
            module, found = self._find_plugin(name)
        if problem := self.problem(found, module):
            raise RecipeError(f"{self.kind} {name}: {problem}")
        return cast(T, found)

    def load_ours(self, name: str) -> T:
        """Import one of ours, which plug-ins are not asked about: that takes time.

        Whoever only asks what a result depends on, as every trial does, comes behind somebody who
        has found the component.
        """
        return cast(T, load(self.ours[name]))

    def keys(self, name: str, folder: FilePath | None = None) -> dict[str, Key]:
        """Return the keys that a recipe may give a component. Raises RecipeError like `find`."""
        return declared_keys(self.find(name, folder))

    def module_of(self, name: str) -> str | None:
        """Return the module of a component that is not ours, without importing it; None for ours.

        Its code is a part of what a result depends on. Raises RecipeError for an unknown name.
        """
        self.check_name(name)
        if name in self.ours:
            return None
        return name.partition(":")[0] if is_of_user(name) else self._plugins()[name][0].module

    @contextlib.contextmanager
    def explained(
        self,
        name: str,
        folder: FilePath | None,
        error: type[SposError] = RecipeError,
        what: str = "cannot be made: ",
    ) -> Iterator[None]:
        """Turn whatever the code of a component that is not ours raises into one line.

        Parameters
        ----------
        name
            Of the component.
        folder
            The recipe's.
        error
            Class of the error that is raised.
        what
            Stands before the reason.
        """
        try:
            yield
        except SposError:
            raise
        except Exception as problem:  # its own code runs: anything can be raised
            if name in self.ours:
                raise
            raise error(f"{self.kind} {name}: {what}{explain(problem, folder)}") from problem

    def problem(self, found: Any, module: ModuleType) -> str:
        """Return why what was found cannot be a component of this kind, or "".

        Parameters
        ----------
        found
            What the name stands for.
        module
            Where it was found.
        """
        if not inspect.isclass(found):
            return f"is a {type(found).__name__}, not a class."
        base = load(self.base)
        if not issubclass(found, base):
            derive = self.base.replace(":", ".")
            return f"is a {found.__name__}, not a {base.__name__}. Derive the class from {derive}."
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            return f"the class {found.__name__} does not define {', '.join(missing)}."
        # `setting` says nothing in a class that is no dataclass itself.
        bare = [key for key, value in vars(found).items() if isinstance(value, dataclasses.Field)]
        if bare:
            return (
                f"the class {found.__name__} declares '{bare[0]}', but is no dataclass. Write "
                "@dataclass(frozen=True) above it."
            )
        return ""

    def _plugins(self) -> dict[str, list[EntryPoint]]:
        return _plugins(self.group)

    def _check_clash(self, name: str) -> None:
        """Refuse the name of several components: a recipe would mean either. Raises RecipeError."""
        owners = [_package(x) for x in self._plugins().get(name, ())]
        if name in self.ours:
            owners.insert(0, "nni_spos itself")
        if len(owners) > 1:
            raise RecipeError(
                f"{self.kind} {name}: this is a name of {' and of '.join(owners)}. Uninstall one, "
                "or give it another name."
            )

    def _find_plugin(self, name: str) -> tuple[ModuleType, Any]:
        entry = self._plugins()[name][0]
        try:
            return import_module(entry.module), entry.load()
        except Exception as problem:  # the module's own code runs: anything can be raised
            raise RecipeError(
                f"{self.kind} {name}: cannot load '{entry.value}' of {_package(entry)} "
                f"({explain(problem, None)}). Mend or uninstall it."
            ) from problem

    def _find_users(self, name: str, folder: FilePath | None) -> tuple[ModuleType, Any]:
        module_name, _, attribute = name.partition(":")
        try:
            module = import_user_module(module_name, folder)
        except Exception as problem:  # as above
            missing = problem.name if isinstance(problem, ModuleNotFoundError) else None
            if missing and f"{module_name}.".startswith(f"{missing}."):
                reason = _where_looked(missing, folder)
            else:
                reason = explain(problem, folder)
            raise RecipeError(
                f"{self.kind} {name}: cannot import '{module_name}' ({reason})."
            ) from problem
        if not hasattr(module, attribute):
            fitting = [x for x, value in vars(module).items() if not self.problem(value, module)]
            raise RecipeError(
                f"{self.kind} {name}: module '{module_name}' has no '{attribute}'"
                f"{nearest(attribute, fitting) or '.'}"
            )
        return module, getattr(module, attribute)


def is_of_user(name: str) -> bool:
    """Whether a name is one of a user's module, ``module:Class``."""
    return ":" in name


def load(reference: str) -> Any:
    """Import what ``package.module:Name`` stands for.

    >>> load("numbers:Integral")
    <class 'numbers.Integral'>
    """
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


@cache
def _installed() -> Any:
    """Return all entry points: reading those of every package takes some milliseconds."""
    from importlib.metadata import entry_points  # as does this

    return entry_points()


def _plugins(group: str) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a group by name: more than one where packages have the same."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in _installed().select(group=group):
        known = found.setdefault(entry.name, [])
        # A package can be in Python's path twice; Python takes the first.
        if _package(entry) not in map(_package, known):
            known.append(entry)
    return found


def _package(entry: EntryPoint) -> str:
    package = entry.dist
    return "a package" if package is None else f"{package.name} {package.version}"


def _where_looked(module_name: str, folder: FilePath | None) -> str:
    if folder is None:
        return f"there is no '{module_name}' among installed packages and in PYTHONPATH"
    others = [file.stem for file in folder.glob("*.py")]
    return (
        f"there is no '{module_name}' in the recipe's folder {folder}, among installed packages "
        f"and in PYTHONPATH{nearest(module_name, others)}"
    )


def explain(problem: Exception, folder: FilePath | None) -> str:
    """Return in one line what went wrong in a user's code and, if that is in the folder, where."""
    text = " ".join(str(problem).split())
    if not isinstance(problem, SposError | TypeError | ValueError):
        text = f"{type(problem).__name__}: {text}"
    # An error of ours may stand for one that the code raised.
    for raised in (problem, problem.__context__):
        frames = traceback.extract_tb(raised.__traceback__) if raised else []
        own = [frame for frame in frames if FilePath(frame.filename).parent == folder]
        if own:
            return f"{text} ({FilePath(own[-1].filename).name}, line {own[-1].lineno})"
    return text


def declared_keys(component: Any) -> dict[str, Key]:
    """Return the keys that a dataclass declares, in their order.

    Those are its fields that `nni_spos.recipe.settings.setting` made. Each is described by the
    first sentence that the section Parameters of the class's docstring, or of that of a base,
    has about it.

    Parameters
    ----------
    component
        A class, or one that has such a class as its attribute ``Settings``; one that is no
        dataclass has no keys.
    """
    component = getattr(component, "Settings", component)
    if not dataclasses.is_dataclass(component):
        return {}
    about = described_parameters(component)
    return {
        x.name: Key(
            name=x.name,
            default=x.default,
            rule=x.metadata["rule"].words,
            description=about.get(x.name, ""),
            schema=x.metadata["rule"].json_schema(),
        )
        for x in dataclasses.fields(component)
        if "rule" in x.metadata
    }


_SECTION = re.compile(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n---+$|\Z)", re.DOTALL | re.MULTILINE)
"""The section Parameters of a docstring in numpy's style, without its title."""

_ENTRY = re.compile(r"^(\w[\w, ]*)(?: *:[^\n]*)?\n((?:[ \t]+[^\n]*\n?|\n)+)", re.MULTILINE)
"""One or more names, and the indented text about them."""


def described_parameters(component: Any) -> dict[str, str]:
    """Return the first sentence about each parameter that docstrings of a class describe.

    >>> described_parameters(Key)["name"]
    'Of the key.'
    """
    found: dict[str, str] = {}
    for owner in reversed(getattr(component, "__mro__", (component,))):
        section = _SECTION.search(inspect.cleandoc(vars(owner).get("__doc__") or ""))
        for names, text in _ENTRY.findall(section[1] if section else ""):
            sentence = re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]
            found |= {name.strip(): sentence for name in names.split(",")}
    return found
