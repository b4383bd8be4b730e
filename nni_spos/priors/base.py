"""What every prior has in common: the path of a step is a function of (seed, step)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.errors import PathError
from nni_spos.path import Choice, Indices, Path, PathSpace
from nni_spos.recipe.named_components import NoSettings

NUM_DRAWS = 20_000
"""Paths that the probability of a choice is estimated from."""


class Prior(ABC):
    """A fixed distribution over paths that supernet training draws from.

    A subclass says how to draw many paths at once (`draw`). Paths for training are drawn in
    blocks of `BLOCK_SIZE` steps, each block from its own generator, so that every rank of a
    data-parallel job and every resumed run finds the same path for the same step, at the price
    of a list look-up.

    Parameters
    ----------
    space
        Labels and their choices.
    seed
        Seed of this prior's own generators; no other randomness is used.

    Attributes
    ----------
    Settings : type
        What a subclass takes from a recipe: a frozen dataclass whose fields
        `nni_spos.recipe.settings.setting` makes. Its property ``costs``, if it has one, names the
        metrics that the prior depends on.
    metric : str or None
        Cost that the prior is about, if it is about one.
    bins : sequence of Constraint
        Intervals of that cost that it draws from.

    Examples
    --------
    A module ``my_prior.py`` beside a recipe that has ``supernet: {prior: my_prior:Lean, lean: 3}``:

    >>> from nni_spos.recipe.settings import real, setting
    >>> class Lean(Prior):
    ...     @dataclasses.dataclass(frozen=True)
    ...     class Settings:
    ...         lean: float = setting(real(0), 1.0)
    ...
    ...     def __init__(self, space, seed=0, lean=1.0):
    ...         super().__init__(space, seed)
    ...         self.lean = lean
    ...
    ...     def draw(self, num_paths, generator):
    ...         shares = generator.random((num_paths, len(self.space))) ** self.lean
    ...         return (shares * self.space.num_choices).astype(np.int64)
    """

    Settings: ClassVar[type[Any]] = NoSettings
    BLOCK_SIZE = 1024

    metric: str | None = None
    bins: Sequence[Constraint] = ()

    def __init__(self, space: PathSpace, seed: int = 0):
        self.space = space
        self.seed = seed
        self._block_number = -1
        self._block: list[Path] = []

    @classmethod
    def build(cls, space: PathSpace, costs: Costs, seed: int, settings: Any) -> Prior:
        """Make the prior that a recipe asks for.

        By default the constructor gets the space, `seed`, and the fields of `settings` by name; a
        subclass that needs costs has a method of its own.

        Parameters
        ----------
        space
            Labels and their choices.
        costs
            Cost tables by metric.
        seed
            That of the training.
        settings
            An instance of `Settings`.

        Raises
        ------
        ConstraintError, InfeasibleError
            There is no such cost, or there are no such paths.
        """
        fields = dataclasses.fields(settings)
        return cls(space, seed=seed, **{x.name: getattr(settings, x.name) for x in fields})

    @abstractmethod
    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        """Draw paths independently, as positions of shape (num_paths, num_labels)."""

    def path(self, step: int) -> Path:
        """Return the training path of a step (0, 1, 2, ...): always the same for one seed."""
        number, offset = divmod(step, self.BLOCK_SIZE)
        if number != self._block_number:
            generator = np.random.default_rng([self.seed, number])
            drawn = self.draw(self.BLOCK_SIZE, generator)
            self._check(drawn)
            self._block = self.space.decode(drawn)
            self._block_number = number
        return dict(self._block[offset])

    def paths(self, step: int, num_paths: int) -> list[Path]:
        """Return the training paths of a step that has several: those of as many single steps."""
        return [self.path(step * num_paths + i) for i in range(num_paths)]

    def _check(self, drawn: Indices) -> None:
        """Refuse what are no paths: a negative position would be taken from the end."""
        shape = (self.BLOCK_SIZE, len(self.space))
        is_whole = isinstance(drawn, np.ndarray) and drawn.dtype.kind in "iu"
        if not is_whole or drawn.shape != shape:
            found = (getattr(drawn, x, type(drawn).__name__) for x in ("dtype", "shape"))
            raise PathError(
                f"prior {type(self).__name__}: draw must return an array of whole numbers of shape "
                f"{shape}, got {' and '.join(map(str, found))}."
            )
        if (drawn < 0).any() or (drawn >= self.space.num_choices).any():
            raise PathError(
                f"prior {type(self).__name__}: draw returned a position that a label has not. The "
                "positions of n choices are 0 to n - 1."
            )

    def marginals(self) -> dict[str, dict[Choice, float]]:
        """Return the probability of each choice of each label; by default estimated from draws."""
        rows = self.draw(NUM_DRAWS, np.random.default_rng(self.seed))
        counts = [
            np.bincount(column, minlength=size)
            for column, size in zip(rows.T, self.space.num_choices, strict=True)
        ]
        return {
            label: dict(zip(choices, (found / NUM_DRAWS).tolist(), strict=True))
            for (label, choices), found in zip(self.space.items(), counts, strict=True)
        }

    def describe(self) -> list[str]:
        """Return in lines, for people, which paths are drawn."""
        return [f"drawn by {type(self).__name__}; probabilities from {NUM_DRAWS:,} draws"]
