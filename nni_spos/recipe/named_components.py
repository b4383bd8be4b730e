"""Sections of a recipe that name a component, whose keys stand beside the section's own.

A prior and a search have state. What they take from a recipe is therefore a class of its own, their
attribute ``Settings``: a frozen dataclass whose fields `nni_spos.recipe.settings.setting` makes.
A data set has no state, and is such a class itself. Keys of ours are checked when a recipe is read.
Those of others are checked when the component is built: reading a recipe imports nothing that it
names.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, ClassVar, TypeVar

from nni_spos.components import Registry, declared_keys
from nni_spos.errors import RecipeError, SposError, unknown
from nni_spos.recipe.code_digest import digest_code
from nni_spos.recipe.settings import check_settings, read_settings
from nni_spos.values import DIGEST, is_plain, shown

T = TypeVar("T")


@dataclass(frozen=True)
class NoSettings:
    """What a component without keys takes from a recipe."""


@dataclass(frozen=True)
class Slot:
    """Where a section names its component.

    Parameters
    ----------
    registry
        Where it is found.
    section
        Name of the section.
    key
        The section's key that names it.
    ignores_others
        Whether keys of others of ours are checked and set aside, so that one section serves all. If
        not, they are refused: they say what is then not done.
    """

    registry: Registry[Any]
    section: str
    key: str
    ignores_others: bool = False

    def read(
        self,
        cls: type[Any],
        name: str,
        arguments: Mapping[str, Any],
        where: str,
        folder: FilePath | None,
    ) -> Any:
        """Return a component's ``Settings``; this imports the component.

        Parameters and errors are those of `check`.
        """
        found, given = self.check(cls, name, arguments, where, folder)
        try:
            return _settings(found)(**given)
        except SposError as problem:
            text = str(problem)
            raise RecipeError(text if text.startswith(where) else f"{where}: {text}") from None

    def check(
        self,
        cls: type[Any],
        name: str,
        arguments: Mapping[str, Any],
        where: str,
        folder: FilePath | None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return a component, which this imports, and its keys that are given, converted.

        Parameters
        ----------
        cls
            Of the section.
        name
            Of the component.
        arguments
            Keys that the section itself does not have, as the user wrote them.
        where
            Name for messages.
        folder
            Of the recipe.

        Raises
        ------
        RecipeError
            There is no such component, it has not such a key, or a value is wrong.
        """
        registry = self.registry
        found = registry.load_ours(name) if name in registry.ours else registry.find(name, folder)
        settings = _settings(found)
        if not _is_dataclass(settings):
            raise RecipeError(
                f"{self.registry.kind} {name}: its class Settings is no dataclass. Write "
                "@dataclass(frozen=True) above it."
            )
        keys = declared_keys(settings)
        taken = [x.name for x in dataclasses.fields(cls) if x.metadata]
        for key in keys:
            if key in taken:
                raise RecipeError(
                    f"{self.registry.kind} {name}: its key '{key}' is one of the section "
                    f"{self.section} too. Give it another name."
                )
        for key in arguments:
            if key in keys:
                continue
            owner = self._owner(key)
            if owner is None:
                raise RecipeError(f"{where}: {unknown('key', key, [*taken, *keys])}")
            if not self.ignores_others:
                raise RecipeError(
                    f"{where}: the {self.registry.kind} {name} has no {key}; did you mean "
                    f"'{self.key}: {owner}'?"
                )
            check_settings(_settings(registry.load_ours(owner)), {key: arguments[key]}, where)
        own = {key: value for key, value in arguments.items() if key in keys}
        return found, check_settings(settings, own, where)

    def _owner(self, key: str) -> str | None:
        """Return which of ours has a key."""
        registry = self.registry
        return next((x for x in registry.ours if key in declared_keys(registry.load_ours(x))), None)


def _settings(found: Any) -> Any:
    """Return the class whose fields are a component's keys."""
    return getattr(found, "Settings", found)


def _is_dataclass(settings: object) -> bool:
    return inspect.isclass(settings) and dataclasses.is_dataclass(settings)


@dataclass(frozen=True)
class NamesComponent:
    """Base of a section that names a component.

    Parameters
    ----------
    arguments
        Keys of the component, as the recipe has them.
    folder
        Of the recipe, where a user's module is looked for first; None: in Python's path alone.
    """

    slot: ClassVar[Slot]
    arguments: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    folder: FilePath | None = field(default=None, kw_only=True, compare=False)

    @property
    def component(self) -> str:
        """Name of the component."""
        return str(getattr(self, self.slot.key))

    def own(self) -> Any:
        """Return the component's ``Settings``, complete and checked; this imports the component.

        Raises
        ------
        RecipeError
            See `Slot.read`; or the settings do not go with those of the section.
        """
        slot = self.slot
        own = slot.read(type(self), self.component, self.arguments, slot.section, self.folder)
        beside = getattr(own, "beside", None)
        return own if beside is None else beside(self)

    def check_own(self) -> None:
        """Check the settings of one of ours. Raises RecipeError."""
        if self.component in self.slot.registry.ours:
            self.own()

    def describe_own(self) -> dict[str, Any]:
        """Return what results depend on of the component's settings.

        Of ours a default is as if it were written down. Of others the recipe's words are enough:
        their code, in which the defaults stand, is a part of its own.
        """
        if self.component not in self.slot.registry.ours:
            return dict(self.arguments)
        own = self.own()
        places = getattr(own, "places", ())
        keys = [x.name for x in dataclasses.fields(own) if x.metadata and x.name not in places]
        return {key: _plain(getattr(own, key)) for key in keys}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a constraint as its text."""
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value if is_plain(value) else str(value)


def read_section(cls: type[T], content: Any, where: str, folder: FilePath) -> T:
    """Build a section from what the user wrote, with or without a component.

    `folder` is the recipe's. The other parameters, and the errors, are those of
    `nni_spos.recipe.settings.read_settings`.
    """
    if issubclass(cls, NamesComponent):
        given = check_section(cls, {} if content is None else content, where)
        return cls(**given, folder=folder)
    return read_settings(cls, content, where)


def check_section(
    cls: type[NamesComponent], content: Mapping[str, Any], where: str, before: Any = None
) -> dict[str, Any]:
    """Check and convert the given keys of a section, and those of its component.

    Parameters
    ----------
    cls
        Of the section.
    content
        What the user wrote.
    where
        Name for messages.
    before
        The section that is changed, if one is; what a component that it no longer names took is
        left out.

    Raises
    ------
    RecipeError
        See `Slot.read`.
    """
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where}: must map keys to values, got {shown(content)}.")
    names = [x.name for x in dataclasses.fields(cls) if x.metadata]
    slot = cls.slot
    given = check_settings(cls, {k: v for k, v in content.items() if k in names}, where)
    arguments = {k: v for k, v in content.items() if k not in names}
    default = next(x.default for x in dataclasses.fields(cls) if x.name == slot.key)
    name = given.get(slot.key, default if before is None else before.component)
    if name in slot.registry.ours:
        found, _ = slot.check(cls, name, arguments, where, None)
        if hasattr(found, "Settings"):  # these may refuse what does not go together
            slot.read(cls, name, arguments, where, None)
    if before is not None:
        arguments = {**_kept(before, name), **arguments}
    return {**given, "arguments": arguments}


def _kept(before: NamesComponent, name: str) -> Mapping[str, Any]:
    """Return what a section's component took of which another one, perhaps, is to have it too."""
    if name == before.component:
        return before.arguments
    registry = before.slot.registry
    known = {key for x in registry.ours for key in declared_keys(registry.load_ours(x))}
    return {key: value for key, value in before.arguments.items() if key in known}


def digest_component(registry: Registry[Any], name: str, folder: FilePath) -> Mapping[str, Any]:
    """Return what stands for the code of a component in what a result depends on.

    Nothing for one of ours, which the versions of this package stand for. The code is read, not
    run. What cannot be found has no digest; whoever needs it says so.
    """
    try:
        module = registry.module_of(name)
    except SposError:
        return {}
    return {} if module is None else {DIGEST: digest_code(module, folder)}
