"""The front of accuracy and costs: what no other candidate improves on in every respect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nni_spos.constraint import Constraint
from nni_spos.evolution.candidate import Candidate, State

DEFAULT_COST = "flops"
"""Cost that is minimised if neither objectives nor constraints name one."""


def choose_cost_objectives(
    cost_objectives: Sequence[str], constraints: Sequence[Constraint]
) -> tuple[str, ...]:
    """Return the costs to minimise: those named, else the first constraint's, else FLOPs.

    >>> choose_cost_objectives([], [Constraint("params", high=3e6)])
    ('params',)
    """
    return tuple(cost_objectives) or tuple(x.metric for x in constraints[:1]) or (DEFAULT_COST,)


def objective_values(
    candidates: Sequence[Candidate], objective: str, cost_objectives: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Return what is to be as low as possible, shape (num_candidates, 1 + num_costs).

    That is the negative of the result `objective`, then the costs.
    """
    rows = [[-c.metrics[objective], *(c.costs[x] for x in cost_objectives)] for c in candidates]
    return np.array(rows, dtype=float).reshape(len(rows), 1 + len(cost_objectives))


def pareto_front(
    candidates: Sequence[Candidate], objective: str, cost_objectives: Sequence[str]
) -> list[Candidate]:
    """Return the finished candidates that no other one dominates.

    One candidate dominates another if it is nowhere worse and somewhere better. Equal ones stay
    together.

    Parameters
    ----------
    candidates
        Of a search; those without a result are left out.
    objective
        Result that is to be as high as possible.
    cost_objectives
        Costs that are to be as low as possible.

    Returns
    -------
    The front by rising cost, the first one named before the others.
    """
    done = [candidate for candidate in candidates if candidate.state is State.DONE]
    values = objective_values(done, objective, cost_objectives)
    # A candidate follows those that dominate it, and the first of these is on the front.
    front: list[Candidate] = []
    on_front = np.empty_like(values)
    for place in np.lexsort(values.T[::-1]):
        own, known = values[place], on_front[: len(front)]
        if not ((known <= own).all(axis=1) & (known < own).any(axis=1)).any():
            on_front[len(front)] = own
            front.append(done[place])
    return sorted(front, key=lambda c: (*(c.costs[x] for x in cost_objectives), c.number))
