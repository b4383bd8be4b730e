"""How much each choice alone changes a result, and which paths that promises much of.

What is called sensitivity analysis where trained networks are pruned. One path is known to be good,
such as the network that a space was made of, but it breaks the limits, and paths that are drawn at
random below them change so much at a time that nothing can be told apart. So each choice is tried
alone, above the limits. The sum of what the choices of a path cost ranks the paths that keep them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nni_spos.constraint import Constraint
from nni_spos.cost_table import Costs
from nni_spos.evolution.evolution import EvolutionSearch
from nni_spos.evolution.search import Signal
from nni_spos.path import Choice, Path, PathSpace

Effects = Mapping[str, Mapping[Choice, float]]
"""By label and choice: the result with that choice alone, less the one without."""

POPULATION, GENERATIONS = 100, 40
"""Of the search on sums of effects, which costs no evaluation."""


def single_changes(space: PathSpace, base: Path) -> list[Path]:
    """Return a path, and all that differ from it in one choice, label by label.

    Examples
    --------
    >>> space = PathSpace({"kernel": [3, 5], "width": [8, 16, 24]})
    >>> [tuple(path.values()) for path in single_changes(space, {"kernel": 5, "width": 24})]
    [(5, 24), (3, 24), (5, 8), (5, 16)]
    """
    others = [
        {**base, label: choice}
        for label, choices in space.items()
        for choice in choices
        if choice != base[label]
    ]
    return [dict(base), *others]


def effects_of(space: PathSpace, base: Path, results: Sequence[float]) -> Effects:
    """Return the effects of choices, from the results of `single_changes` in their order.

    A result that is not finite is the worst of all that are.
    """
    worst = min((x for x in results if math.isfinite(x)), default=0.0)
    known = iter([x if math.isfinite(x) else worst for x in results])
    whole = next(known)
    return {
        label: {choice: 0.0 if choice == base[label] else next(known) - whole for choice in choices}
        for label, choices in space.items()
    }


def promising_paths(
    space: PathSpace,
    costs: Costs,
    constraints: Sequence[Constraint],
    effects: Effects,
    number: int,
    seed: int = 0,
) -> list[Path]:
    """Return paths that keep limits and lose least by the sum of effects, best first.

    Parameters
    ----------
    space
        Labels and their choices.
    costs
        Cost tables by metric.
    constraints
        Limits that every path keeps.
    effects
        By label and choice, see `effects_of`.
    number
        Of the paths, at most; fewer if no more were met.
    seed
        Of the search for them.

    Raises
    ------
    ConstraintError, InfeasibleError
        The constraints cannot be met.
    """
    search = EvolutionSearch(
        space,
        {limit.metric: costs[limit.metric] for limit in constraints if limit.metric in costs},
        constraints=constraints,
        population_size=POPULATION,
        num_generations=GENERATIONS,
        top_k=POPULATION // 4,
        objective="sum",
        seed=seed,
    )
    while not isinstance(path := search.ask(), Signal):
        search.tell(path, {"sum": sum(effects[label][path[label]] for label in space.labels)})
    return [dict(candidate.path) for candidate in search.top(number)]
