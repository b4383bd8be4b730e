"""A few paths that say most about all others, to be trained alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.evolution.feasible import FeasibleSampler
from nni_spos.path import Indices, Path, PathSpace
from nni_spos.prediction.design import d_optimal
from nni_spos.recipe.rules import parse_constraints

POOL = 1000
"""Random paths that landmarks are chosen from."""


def draw_pool(
    sampler: FeasibleSampler, count: int, generator: np.random.Generator, known: object = ()
) -> Indices:
    """Return different random paths that meet all constraints, shape (num_paths, num_labels).

    Parameters
    ----------
    sampler
        Draws them.
    count
        How many, at most.
    generator
        Source of randomness.
    known
        A container of paths, as positions, that are left out.
    """
    found: dict[tuple[int, ...], None] = {}
    # Where few paths are left, draws are mostly of known ones.
    for key in itertools.islice(sampler.stream(generator, count), 4 * count):
        if key not in known:  # type: ignore[operator]
            found[key] = None
            if len(found) == count:
                break
    return np.array(list(found), dtype=np.int64).reshape(len(found), len(sampler.space))


def choose_landmarks(
    space: PathSpace,
    costs: Costs,
    n: int,
    seed: int = 0,
    constraints: Sequence[Constraint | str] = (),
) -> list[Path]:
    """Choose paths whose results say most about all others.

    Of random paths always the one whose result is least certain by a model in which every choice
    has an effect of its own; that is the greedy way to a D-optimal design. The first ones of a seed
    do not depend on the number.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric.
    n
        How many; fewer if there are not as many paths.
    seed
        Draws the paths to choose from.
    constraints
        Limits that they keep.

    Raises
    ------
    ConstraintError, InfeasibleError
        See `FeasibleSampler`.

    Examples
    --------
    >>> from nni_spos.testing.small_space import COSTS, SPACE
    >>> [list(x.values()) for x in choose_landmarks(SPACE, COSTS, 3)]
    [['k5', 32, 4], ['k3', 64, 2], ['k5', 16, 2]]
    """
    sampler = FeasibleSampler(space, costs, parse_constraints(constraints))
    pool = draw_pool(sampler, POOL, np.random.default_rng(seed))
    return space.decode(pool[list(itertools.islice(d_optimal(pool, space.num_choices), n))])
