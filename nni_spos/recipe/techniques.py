"""Training techniques that a recipe asks for, in its sections supernet and retrain.

The keys of ours stand beside the section's own, as those of a prior do: ``mixup: 0.2``. A plug-in's
or a user's are listed under ``techniques``, by name or as a mapping with the key ``name``; so are
ours by whoever makes settings in Python.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from nni_spos.components import Key, declared_keys
from nni_spos.errors import RecipeError, unknown
from nni_spos.files.digests import digest_weights
from nni_spos.recipe.registries import TECHNIQUES
from nni_spos.recipe.settings import Rule, check_settings
from nni_spos.values import is_plain


@dataclass(frozen=True)
class RecipePlace:
    """Where a recipe is, and what a technique may need to know of the rest of it.

    Parameters
    ----------
    folder
        Of the recipe, where a user's module is looked for first, and files that it names.
    output
        Its output folder.
    space, arguments
        Name of its space, and what that takes.
    teacher
        The trained network of the space's largest path, where a technique has asked for one.
    """

    folder: FilePath | None = None
    output: FilePath | None = None
    space: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    teacher: FilePath | None = None


NOWHERE = RecipePlace()
"""Of settings that are in no recipe."""


@dataclass(frozen=True)
class TechniqueSettings:
    """A technique that a training has.

    Parameters
    ----------
    name
        Of the component.
    arguments
        Its keys, as the recipe has them.
    place
        Where the recipe is.
    is_inherited
        Whether the recipe asks for it in the section of the supernet, which is also that of
        retraining where it has none; there it is left out if it is not for retraining.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    place: RecipePlace = field(default=NOWHERE, compare=False)
    is_inherited: bool = field(default=False, compare=False)

    @property
    def is_ours(self) -> bool:
        """Whether it is one of ours."""
        return self.name in TECHNIQUES.ours

    def find(self) -> Any:
        """Import its class and return it. Raises RecipeError."""
        if self.is_ours:
            return TECHNIQUES.load_ours(self.name)
        return TECHNIQUES.find(self.name, self.place.folder)

    def own(self, where: str = "techniques") -> Any:
        """Return its settings, complete and checked; this imports it. Raises RecipeError."""
        cls = self.find().Settings
        where = where if self.is_ours else f"{where}: {self.name}"
        return cls(**check_settings(cls, self.arguments, where))

    def is_on(self) -> bool:
        """Whether it does anything; a user's does where it is listed. Raises RecipeError."""
        return not self.is_ours or bool(self.find().is_on(self.own()))

    def deciding(self) -> dict[str, Any] | None:
        """Return what weights depend on of it; None for nothing.

        Of ours a default is as if it were written down. Of others the recipe's words are enough:
        their code, in which the defaults stand, is a part of its own.
        """
        if not self.is_ours:
            return dict(self.arguments)
        cls, own = self.find(), self.own()
        if not cls.decides or not cls.is_on(own):
            return None
        found = {x.name: _plain(getattr(own, x.name)) for x in dataclasses.fields(own)}
        for key in cls.files(own):  # contents count, and not where they are
            file = (self.place.folder or FilePath()) / os.path.expanduser(found[key])
            found[key] = digest_weights(file)
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value if is_plain(value) else str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(x, str) or (isinstance(x, Mapping) and isinstance(x.get("name"), str))
        for x in value
    )


def _listed_json() -> dict[str, Any]:
    """Return what the list of a recipe may have, as JSON Schema."""
    name = {"anyOf": [{"enum": TECHNIQUES.names()}, {"type": "string", "pattern": ":"}]}
    entry = {"type": "object", "properties": {"name": name}, "required": ["name"]}
    return {"type": "array", "items": {"anyOf": [name, entry]}}


LISTED = Rule(
    _is_list,
    "a list such as [my_technique:Sam], or with keys [{name: my_technique:Sam, rho: 0.05}]",
    _listed_json,
)


def read_listed(entries: Sequence[Any]) -> tuple[TechniqueSettings, ...]:
    """Return the techniques of a list in a recipe; nobody's code is run. Raises RecipeError."""
    found: list[TechniqueSettings] = []
    for entry in entries:
        arguments = {"name": entry} if isinstance(entry, str) else dict(entry)
        name = arguments.pop("name")
        TECHNIQUES.check_name(name)
        found.append(TechniqueSettings(name, arguments))
        if found[-1].is_ours:
            found[-1].own(name)
    check_once(found)
    return tuple(found)


def check_once(techniques: Sequence[TechniqueSettings]) -> None:
    """Refuse a technique that is asked for twice. Raises RecipeError."""
    names = [x.name for x in techniques]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"the technique {name} is there twice.")


def technique_keys(section: str = "") -> dict[str, tuple[str, Key]]:
    """Return the keys of all our techniques that a section may have, each with its technique.

    Parameters
    ----------
    section
        ``supernet`` or ``retrain``; "" for both.
    """
    return {
        key: (name, declared)
        for name in TECHNIQUES.ours
        for key, declared in declared_keys(TECHNIQUES.load_ours(name)).items()
        if not section or section in TECHNIQUES.load_ours(name).sections
    }


def split_techniques(
    content: Mapping[str, Any], own: Sequence[str], where: str
) -> tuple[dict[str, Any], tuple[TechniqueSettings, ...]]:
    """Take the keys of techniques out of a section.

    Parameters
    ----------
    content
        What the user wrote.
    own
        Keys of the section itself.
    where
        Name for messages.

    Returns
    -------
    What is left, and the techniques in the order of the registry.

    Raises
    ------
    RecipeError
        A value is wrong, or a key is of a technique that is not asked for.
    """
    if all(key in own for key in content):  # nearly always: imports nothing
        return dict(content), ()
    keys = technique_keys()
    taken: dict[str, dict[str, Any]] = {name: {} for name in TECHNIQUES.ours}
    rest = {}
    for key, value in content.items():
        if key in keys and key not in own:
            taken[keys[key][0]][key] = value
        else:
            rest[key] = value
    found = tuple(TechniqueSettings(name, x) for name, x in taken.items() if x)
    for technique in found:
        cls = technique.find()
        technique.own(where)
        switches = cls.switches()
        if not any(key in technique.arguments for key in switches):
            key = next(iter(technique.arguments))
            raise RecipeError(
                f"{where}: {key} does nothing without {' or '.join(switches)}. Add that, or leave "
                "this out."
            )
    return rest, found


def refuse_unknown(key: str, known: Sequence[str], section: str, where: str) -> None:
    """Refuse a key that nobody has, naming those of techniques too. Raises RecipeError."""
    raise RecipeError(f"{where}: {unknown('key', key, [*known, *technique_keys(section)])}")
