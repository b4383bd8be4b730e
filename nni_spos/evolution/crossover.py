"""Crossover: every unit from either parent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_spos.path import PathKey


def crossover(mother: PathKey, father: PathKey, generator: np.random.Generator) -> PathKey:
    """Take each unit's choice from one of two paths with equal probability.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, Algorithm 1.
    """
    from_mother = generator.random(len(mother)) < 0.5
    return tuple(m if first else f for m, f, first in zip(mother, father, from_mother, strict=True))


def crossover_options(mother: PathKey, father: PathKey) -> list[Sequence[int]]:
    """Return what a child's units can be: the choice of either parent."""
    return [(m,) if m == f else (m, f) for m, f in zip(mother, father, strict=True)]
