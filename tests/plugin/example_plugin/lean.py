"""A prior that prefers the first choices of every label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nni_spos.path import Indices, PathSpace
from nni_spos.priors import Prior
from nni_spos.recipe.settings import real, setting


class Lean(Prior):
    """Draw every unit's choice independently, the first ones more often.

    Parameters
    ----------
    space
        Labels and their choices.
    seed
        Seed of this prior's own generators.
    lean
        How much more often; 1 is the uniform prior.
    """

    @dataclass(frozen=True)
    class Settings:
        """What a recipe says.

        Parameters
        ----------
        lean
            How much more often the first choices are drawn; 1 is the uniform prior.
        """

        lean: float = setting(real(1), 2.0)

    def __init__(self, space: PathSpace, seed: int = 0, lean: float = 2.0):
        super().__init__(space, seed)
        self.lean = lean

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        """Draw paths independently."""
        shares = generator.random((num_paths, len(self.space))) ** self.lean
        return (shares * self.space.num_choices).astype(np.int64)
