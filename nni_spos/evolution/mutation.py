"""Mutation: every unit re-drawn with a small probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_spos.path import PathKey


def mutate(
    parent: PathKey, num_choices: Sequence[int], prob: float, generator: np.random.Generator
) -> PathKey:
    """Re-draw each unit's choice uniformly with probability `prob`, else keep it.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, Algorithm 1.
    """
    redrawn = generator.random(len(parent)) < prob
    drawn = generator.integers(0, np.asarray(num_choices))
    return tuple(
        int(new) if again else old for old, new, again in zip(parent, drawn, redrawn, strict=True)
    )


def mutation_options(
    parent: PathKey, mutant: PathKey, num_choices: Sequence[int]
) -> list[Sequence[int]]:
    """Return what the mutated units may be re-drawn to: everything, and the rest is kept."""
    return [
        (old,) if new == old else range(n)
        for old, new, n in zip(parent, mutant, num_choices, strict=True)
    ]
