"""What every prior has in common: the path of a step is a function of (seed, step)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from nni_spos.path import Indices, Path, PathSpace


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
    """

    BLOCK_SIZE = 1024

    def __init__(self, space: PathSpace, seed: int = 0):
        self.space = space
        self.seed = seed
        self._block_number = -1
        self._block: list[Path] = []

    @abstractmethod
    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        """Draw paths independently, as positions of shape (num_paths, num_labels)."""

    def path(self, step: int) -> Path:
        """Return the training path of a step (0, 1, 2, ...): always the same for one seed."""
        number, offset = divmod(step, self.BLOCK_SIZE)
        if number != self._block_number:
            generator = np.random.default_rng([self.seed, number])
            self._block = self.space.decode(self.draw(self.BLOCK_SIZE, generator))
            self._block_number = number
        return dict(self._block[offset])
