"""Data sets of PyTorch's kind: what a user's function or class gives, and what libraries have.

A *map-style* data set has ``__len__`` and ``__getitem__``. Its samples are (image, target) or
dicts. What is known about it, such as the number of classes, is seen in its samples: see
`nni_spos.data.opened_samples`, which needs PyTorch, as asking these data sets for their spec does.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path as FilePath
from typing import Any, ClassVar, TypeVar

from nni_spos.components import described_parameters
from nni_spos.data.parts import DatasetParts
from nni_spos.errors import DataError, RecipeError
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import UNKNOWN, Dataset, DatasetSpec
from nni_spos.recipe.settings import FILE, TEXT, Rule, optional, rule_of, setting

FROM_SECTION = ("root", "download", "num_classes")
"""Parameters of a function that are keys of the section, and given to it from there."""

PARTS = ("train", "validation", "test")

F = TypeVar("F", bound="FromFactory")

_PART_OF = {"val": "validation"}

ANYTHING = Rule(object, "what its function takes")

UNSET = object()
"""Of a parameter whose default a field cannot have, such as a list: the function has it."""


@dataclass(frozen=True)
class MapStyle(Dataset):
    """Base of data sets that PyTorch's map-style data sets are behind."""

    def open_parts(self) -> DatasetParts:
        """Return the data sets of the parts."""
        raise NotImplementedError

    def spec(self) -> DatasetSpec:
        """Say what is seen in the samples of the training set."""
        return self._opened().spec

    def open_training_set(self) -> Any:
        """Open all that may be seen before the final test, but a validation set of its own."""
        return self._opened().training

    def open_validation_set(self) -> Any:
        """Open the validation set, if there is one."""
        return self._opened().open_part("validation")

    def open_test_set(self) -> Any:
        """Open the test set, if there is one."""
        return self._opened().open_part("test")

    @property
    def has_test_set(self) -> bool:
        """Whether there are images for the final test."""
        return self._opened().parts.test is not None

    @property
    def says_when_images_change(self) -> bool:
        """Whether a digest says so."""
        return self.digest_training_images() != UNKNOWN

    def _opened(self) -> Any:
        from nni_spos.data.opened_samples import opened

        return opened(self, self.open_parts)


@dataclass(frozen=True)
class FromFactory(MapStyle):
    """What a function or class gives; its parameters are the keys."""

    factory: ClassVar[Callable[..., Any]]
    takes: ClassVar[tuple[str, ...]]

    def arguments(self) -> dict[str, Any]:
        """Return what the factory is called with."""
        keys = [x.name for x in dataclasses.fields(self) if x.metadata and x.name in self.takes]
        found = {key: getattr(self, key) for key in keys if getattr(self, key) is not UNSET}
        for key in FROM_SECTION:
            value = getattr(self.settings, key)
            if key in self.takes and value not in (None, False):
                found[key] = value
        paths = {key: x for key, x in found.items() if isinstance(x, FilePath)}
        return found | {key: FilePath(self.settings.locate(x)) for key, x in paths.items()}

    def call(self, **more: Any) -> Any:
        """Call the factory."""
        return type(self).factory(**{**self.arguments(), **more})

    def open_parts(self) -> DatasetParts:
        """Call the factory once, or once for each part if it takes which."""
        if "train" in self.takes:
            return DatasetParts(
                self.call(train=True), test=functools.partial(self.call, train=False)
            )
        if "split" in self.takes:
            own: Any = self
            named = {
                part: functools.partial(self.call, split=name)
                for part, name in (("validation", own.validation_split), ("test", own.test_split))
                if name is not None
            }
            return DatasetParts(self.call(), **named)
        found = self.call()
        try:
            return parts_of(found)
        except DataError as problem:
            raise DataError(f"data set {self.name}: {problem}") from None

    def digest_training_images(self) -> str | None:
        """Return what the factory's attribute ``digest`` says, called with the same arguments."""
        digest = getattr(type(self).factory, "digest", None)
        if digest is None:
            return UNKNOWN
        found = digest(**self.arguments())
        if not (found is None or isinstance(found, str)):
            raise DataError(
                f"data set {self.name}: digest returned a {type(found).__name__}; must be text, or "
                "None where images never change."
            )
        return found

    def digest_test_images(self) -> str | None:
        """Return the same: it is of all images."""
        return self.digest_training_images()


def parts_of(found: Any) -> DatasetParts:
    """Return the data sets that a function returned: one, three in a tuple, or a dict of them.

    Raises
    ------
    DataError
        It is nothing of this.
    """
    if isinstance(found, tuple) and len(found) == len(PARTS):
        found = dict(zip(PARTS, found, strict=True))
    if isinstance(found, Mapping) and "train" in found:
        found = {_PART_OF.get(key, key): value for key, value in found.items()}
        if set(found) <= set(PARTS):
            given = {key: (lambda x=x: x) for key, x in found.items() if x is not None}
            given.pop("train", None)
            return DatasetParts(found["train"], **given)
    if isinstance(found, tuple | Mapping) or found is None:
        raise DataError(
            f"returned {_shape(found)}; must be a data set with __len__ and __getitem__, the tuple "
            "(training, validation, test), or a dict with the keys train, validation and test. "
            "None stands for a part that there is not."
        )
    return DatasetParts(found)


def _shape(found: Any) -> str:
    if isinstance(found, tuple):
        return f"a tuple of {len(found)}"
    keys = ", ".join(map(str, found)) if isinstance(found, Mapping) else ""
    return f"a dict with the keys {keys}" if keys else "nothing"


@functools.lru_cache(maxsize=16)
def wrapped(factory: Callable[..., Any]) -> type[FromFactory]:
    """Return a data set class whose keys are the parameters of a function or class.

    Parameters
    ----------
    factory
        Returns map-style data sets, or is the class of one.

    Raises
    ------
    RecipeError
        A parameter cannot be given by name, or has the name of a key of the section.
    """
    parameters = parameters_of(factory)
    common = {x.name for x in dataclasses.fields(DataSettings) if x.metadata}
    name = getattr(factory, "__name__", "factory")
    for key, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise RecipeError(f"{name}: its parameter '{key}' cannot be given by name.")
        if hasattr(FromFactory, key) or key == "settings":
            raise RecipeError(f"{name}: its parameter '{key}' must have another name.")
        if key in common and key not in FROM_SECTION:
            raise RecipeError(
                f"{name}: its parameter '{key}' is a key of the section data too. Give it another "
                "name."
            )
    return make_class(factory, parameters)


def make_class(
    factory: Callable[..., Any],
    parameters: Mapping[str, inspect.Parameter],
    base: type[F] = FromFactory,  # type: ignore[assignment]
) -> type[F]:
    """Return the class of what a factory gives that takes these parameters.

    Parameters
    ----------
    factory
        Returns map-style data sets, or is the class of one.
    parameters
        What it may be given.
    base
        What the class is derived from.
    """
    about = described_parameters(factory)
    entries = []
    for key, parameter in parameters.items():
        if key in FROM_SECTION or key == "train":
            continue
        default = parameter.default
        if key == "split" and "train" not in parameters:
            entries += _split_keys(default)
            continue
        if default is parameter.empty:
            default = MISSING
        rule, convert = _rule(parameter.annotation)
        field = setting(rule, _constant(default), convert)
        entries.append((key, Any, field))
    name = getattr(factory, "__name__", "factory")
    text = "".join(f"{key}\n    {sentence}\n" for key, sentence in about.items())
    space = {
        "factory": staticmethod(factory),
        "takes": tuple(parameters),
        "__doc__": f"{name}.\n\nParameters\n----------\n{text}",
        "__module__": getattr(factory, "__module__", __name__),
        "ignored": tuple(x for x in ("root", "download") if x not in parameters),
    }
    return dataclasses.make_dataclass(
        name, entries, bases=(base,), namespace=space, frozen=True, kw_only=True
    )


def _split_keys(default: Any) -> list[tuple[str, Any, Any]]:
    """Return the keys of what takes the name of a part: which part is which."""
    first = default if isinstance(default, str) else "train"
    names = (("split", first), ("validation_split", None), ("test_split", "test"))
    return [(key, Any, setting(optional(TEXT), value)) for key, value in names]


def _constant(default: Any) -> Any:
    """Return a default as a field may have it: dataclasses refuse lists and the like."""
    return default if default is MISSING or default.__hash__ is not None else UNSET


def _rule(annotation: Any) -> tuple[Rule, Callable[[Any], Any] | None]:
    """Return what a parameter takes, as far as its type says, and how that is converted."""
    if annotation is FilePath:
        return FILE, FilePath
    if annotation == FilePath | None:
        return optional(FILE), FilePath
    return rule_of(annotation) or ANYTHING, None


def parameters_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, or of a class and of the bases that it hands on to."""
    named = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    found: dict[str, inspect.Parameter] = {}
    owners: list[Any] = [factory]
    if inspect.isclass(factory):
        owners = [x for x in factory.__mro__ if "__init__" in vars(x)]
    for owner in owners:
        target = owner.__init__ if inspect.isclass(owner) else owner
        try:
            signature = inspect.signature(target, eval_str=True)
        except Exception:  # an annotation can be any code; then it says nothing
            signature = inspect.signature(target)
        parameters = list(signature.parameters.values())
        if inspect.isclass(owner):
            parameters = parameters[1:]  # the object itself
        for parameter in parameters:
            if parameter.kind in named:
                found.setdefault(parameter.name, parameter)
        if not any(x.kind is x.VAR_KEYWORD for x in parameters):
            break
    return found
