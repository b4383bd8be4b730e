"""Paths and the space they are drawn from.

A *path* names one choice for every choice unit of a supernet. It is a plain dict, label to
choice: the same that NNI's ``ModelSpace.freeze()``, an NNI trial and our JSON files use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nni_spos.errors import PathError, nearest
from nni_spos.files.atomic import read_json, write_json
from nni_spos.values import is_finite, shown

Choice = str | int | float | bool
CHOICE_TYPES = (str, int, float, bool)
Path = dict[str, Choice]
PathKey = tuple[int, ...]
Indices = npt.NDArray[np.int64]
"""Paths as numbers, shape (num_paths, num_labels): entry [i, j] is the position of path i's
choice among the choices of label j."""


class PathSpace(Mapping[str, tuple[Choice, ...]]):
    """The labels of a supernet's choice units, each with its choices, in a fixed order.

    Choices are compared with their type: ``"4"`` is not ``4`` and ``1`` is not ``True``.

    Parameters
    ----------
    choices
        Label to its choices: text, whole or finite real numbers, or truth values.

    Raises
    ------
    PathError
        No label, a label without choices, a choice twice, or one of another type.

    Examples
    --------
    >>> space = PathSpace({"layer_1": ["k3", "k5"], "width": [16, 32, 64]})
    >>> space.size
    6
    >>> space.decode(space.encode([{"layer_1": "k5", "width": 16}]))
    [{'layer_1': 'k5', 'width': 16}]
    """

    def __init__(self, choices: Mapping[str, Sequence[Choice]]):
        if not choices:
            raise PathError("a search space needs at least one label with choices.")
        self._choices = {label: tuple(values) for label, values in choices.items()}
        self._positions: dict[str, dict[tuple[type, Choice], int]] = {}
        for label, values in self._choices.items():
            if not isinstance(label, str):
                raise PathError(f"label {shown(label)} must be text.")
            for value in values:
                _check_choice(label, value)
            positions = {(type(value), value): i for i, value in enumerate(values)}
            if not values:
                raise PathError(f"label '{label}' has no choices.")
            if len(positions) < len(values):
                raise PathError(f"label '{label}' names a choice twice: {_listed(values)}.")
            self._positions[label] = positions

    def __getitem__(self, label: str) -> tuple[Choice, ...]:
        return self._choices[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __eq__(self, other: object) -> bool:
        # 1 == True == 1.0 in Python, hence the comparison of types, in the order of labels.
        if not isinstance(other, PathSpace):
            return NotImplemented
        return list(self._positions.items()) == list(other._positions.items())

    def __hash__(self) -> int:
        return hash(tuple(self._choices.items()))

    def __repr__(self) -> str:
        return f"PathSpace({self._choices!r})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in their fixed order."""
        return tuple(self._choices)

    @property
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each label."""
        return tuple(len(values) for values in self._choices.values())

    @property
    def size(self) -> int:
        """Number of paths, exact (a Python integer)."""
        return math.prod(self.num_choices)

    def differing(self, other: PathSpace) -> list[str]:
        """Return the labels that only one of two spaces has, or whose choices are not the same.

        >>> PathSpace({"a": [1], "b": [2]}).differing(PathSpace({"b": [2.0], "c": [3], "a": [1]}))
        ['b', 'c']
        """
        labels = {**self._positions, **other._positions}
        return [x for x in labels if self._positions.get(x) != other._positions.get(x)]

    def describe_choices(self, label: str) -> str:
        """Return the choices of a label in words, also of one that the space does not have."""
        return f"the choices {', '.join(map(repr, self[label]))}" if label in self else "no choices"

    def validate(self, path: Mapping[str, Any]) -> Path:
        """Return `path` with the labels in the order of the space.

        Raises
        ------
        PathError
            A label is missing or unknown, or a choice is not one of the label's.
        """
        if not isinstance(path, Mapping):
            raise PathError(
                f"a path maps every label to a choice, got {type(path).__name__}: {shown(path)}."
            )
        missing = [label for label in self if label not in path]
        extra = [label for label in path if label not in self._choices]
        if extra:
            raise PathError(
                f"label '{extra[0]}' is not in the search space{nearest(extra[0], self) or '.'} "
                f"Labels: {_listed(self)}."
            )
        if missing:
            raise PathError(f"the path has no choice for {_listed(missing)}.")
        for label, positions in self._positions.items():
            self._position(label, positions, path[label])
        return {label: path[label] for label in self}

    def _position(
        self, label: str, positions: Mapping[tuple[type, Choice], int], choice: Any
    ) -> int:
        try:
            return positions[type(choice), choice]
        except (KeyError, TypeError):
            twin = [
                x for x in self[label] if type(choice) in CHOICE_TYPES and str(x) == str(choice)
            ]
            hint = f" (did you mean {twin[0]!r}, a {type(twin[0]).__name__}?)" if twin else ""
            raise PathError(
                f"label '{label}': {shown(choice)} is not a choice{hint}. "
                f"Choices: {_listed(self[label])}."
            ) from None

    def key(self, path: Mapping[str, Any]) -> PathKey:
        """Positions of a path's choices: hashable, equal for equal paths. Raises PathError."""
        path = self.validate(path)
        return tuple(
            positions[type(path[label]), path[label]]
            for label, positions in self._positions.items()
        )

    def encode(self, paths: Iterable[Mapping[str, Any]]) -> Indices:
        """Turn paths into positions, shape (num_paths, num_labels). Raises PathError."""
        keys = [self.key(path) for path in paths]
        return np.array(keys, dtype=np.int64).reshape(len(keys), len(self))

    def decode(self, indices: npt.ArrayLike) -> list[Path]:
        """Turn positions, shape (num_paths, num_labels), into paths."""
        values = list(self._choices.items())
        return [
            {label: choices[i] for (label, choices), i in zip(values, row, strict=True)}
            for row in np.asarray(indices).tolist()
        ]

    def enumerate(self) -> Indices:
        """All paths in lexicographic order, shape (size, num_labels): for small spaces."""
        columns = []
        rest = np.arange(self.size, dtype=np.int64)
        for num_choices in reversed(self.num_choices):
            rest, column = np.divmod(rest, num_choices)
            columns.append(column)
        return np.stack(columns[::-1], axis=1)

    def covering(self, limit: int = 32) -> list[Path]:
        """Return different paths, at most `limit`, that have every choice of every label.

        Path i has choice i of every label, so that there are as few as possible. Of labels with
        more choices than `limit` the last ones are left out.

        >>> PathSpace({"a": ["x", "y", "z"], "b": [1, 2]}).covering()
        [{'a': 'x', 'b': 1}, {'a': 'y', 'b': 2}, {'a': 'z', 'b': 1}]
        """
        number = min(limit, max(self.num_choices))
        return self.decode([[i % count for count in self.num_choices] for i in range(number)])

    def to_search_space(self) -> dict[str, Any]:
        """Return NNI's search-space JSON: ``{label: {"_type": "choice", "_value": [...]}}``."""
        return {
            label: {"_type": "choice", "_value": list(values)} for label, values in self.items()
        }

    @classmethod
    def from_search_space(cls, search_space: Any) -> PathSpace:
        """Read NNI's search-space JSON.

        Raises
        ------
        PathError
            An entry is not of type ``choice``; the label and what is there are named.
        """
        if not isinstance(search_space, Mapping):
            raise PathError("a search space maps every label to its choices.")
        choices = {}
        for label, entry in search_space.items():
            if not (
                isinstance(entry, Mapping)
                and entry.get("_type") == "choice"
                and isinstance(entry.get("_value"), list)
            ):
                raise PathError(
                    f"label '{label}': {shown(entry)} is not supported. "
                    'Allowed: {"_type": "choice", "_value": [...]}.'
                )
            choices[label] = entry["_value"]
        return cls(choices)

    @classmethod
    def from_model_space(cls, model_space: Any) -> PathSpace:
        """Read the labels and choices of an NNI ``ModelSpace``, mutated to a supernet or not.

        Raises
        ------
        PathError
            A mutable is not a plain choice among values, e.g. an ``InputChoice``, or a label has
            different choices in different places.
        """
        choices = {}
        try:
            mutables = model_space.simplify()
        except ValueError as problem:
            raise PathError(_conflict(model_space) or f"{problem}.") from None
        for label, mutable in mutables.items():
            if not hasattr(mutable, "values") or hasattr(mutable, "n_chosen"):
                raise PathError(
                    f"label '{label}' is a {type(mutable).__name__}"
                    f"{_owner(model_space, label)}; only single choices among values (LayerChoice, "
                    "Repeat, nni.choice) can be searched."
                )
            # NNI's labels are of a subclass of str, which files and pickles must not see.
            choices[str.__str__(label)] = list(mutable.values)
        return cls(choices)


def load_path(file: str | os.PathLike[str], space: PathSpace | None = None) -> Path:
    """Read a path from a JSON file and, if a space is given, check it. Raises PathError."""
    path = read_json(file, PathError)
    if not isinstance(path, dict):
        raise PathError(f"{file}: a path is one JSON object, label to choice.")
    try:
        if space is not None:
            return space.validate(path)
        for label, choice in path.items():
            _check_choice(label, choice)
        return path
    except PathError as problem:
        raise PathError(f"{file}: {problem}") from None


def save_path(file: str | os.PathLike[str], path: Mapping[str, Choice]) -> None:
    """Write a path as JSON, atomically."""
    write_json(file, dict(path))


def _check_choice(label: str, value: Any) -> None:
    """Refuse what JSON, or a comparison, could not tell from another choice. Raises PathError."""
    if type(value) not in CHOICE_TYPES or (isinstance(value, int | float) and not _is_real(value)):
        raise PathError(
            f"label '{label}': {shown(value)} cannot be a choice. "
            "Allowed: text, finite numbers, true and false."
        )


def _is_real(value: float) -> bool:
    return isinstance(value, bool) or is_finite(value)


def _conflict(model_space: Any) -> str:
    """Return which label has which different choices in an NNI ``ModelSpace``, or ``""``."""
    found: dict[str, Any] = {}
    for mutable in model_space.leaf_mutables(_is_choice):
        other = found.setdefault(mutable.label, mutable)
        if not mutable.equals(other):
            here, there = (getattr(x, "values", type(x).__name__) for x in (mutable, other))
            return (
                f"the label '{mutable.label}' has the choices {there} in one place and {here} in "
                "another. Use one choice object in both places, or two labels."
            )
    return ""


def _owner(model_space: Any, label: str) -> str:
    """Return which module of an NNI ``ModelSpace`` has a label, in words, or ``""``."""
    for name, module in getattr(model_space, "named_modules", list)():
        own = getattr(module, "mutables", ())
        if name and any(getattr(mutable, "label", None) == label for mutable in own):
            advice = ""
            if type(module).__name__.endswith("InputChoice"):
                advice = ", which chooses a set of its inputs: use a LayerChoice of modules that "
                advice += "each take all inputs and return what is wanted of them"
            return f" of '{name}' ({type(module).__name__}{advice})"
    return ""


def _is_choice(mutable: Any) -> bool:
    return hasattr(mutable, "label") and hasattr(mutable, "values")


def _listed(values: Iterable[Any]) -> str:
    values = list(values)
    some = values if len(values) <= 12 else [*values[:10], "...", values[-1]]
    return ", ".join(value if isinstance(value, str) else shown(value) for value in some)
