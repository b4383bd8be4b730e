"""What a prior draws, for people who wonder why its choices are not all alike."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from nni_spos.cost_table import CostTable
from nni_spos.costs.figures import plot_cost_distribution
from nni_spos.priors import Prior, cost_histogram

NUM_DRAWS = 20_000
"""Paths of the prior that its distribution is shown from."""


def describe_prior(prior: Prior) -> str:
    """Return what is drawn, e.g. bins with their numbers of paths, and every choice's probability.

    Under a constraint the choices of a unit are not alike, although all paths of a bin are: more
    paths go with a cheap choice when the limit is tight.
    """
    lines = [f"{prior.space.size:,} paths in the space", *(f"  {x}" for x in prior.describe())]
    marginals = prior.marginals()
    lines.append("probability of each choice:")
    width = max(map(len, marginals))
    for label, probs in marginals.items():
        cells = [f"{choice} {prob:.3f}" for choice, prob in probs.items()]
        lines.append(f"  {label:<{width}}  {'  '.join(cells)}")
    return "\n".join(lines)


def plot_prior_of(prior: Prior, cost: CostTable, file: str | os.PathLike[str]) -> None:
    """Draw the costs of all paths of the space and of the prior's, with its bins, as PNG."""
    edges, counts = cost_histogram(cost, 80)
    rows = prior.draw(NUM_DRAWS, np.random.default_rng(prior.seed))
    drawn, _ = np.histogram(cost.price_many(rows), edges)
    bins: Sequence[tuple[float, float]] = ()
    if prior.metric == cost.metric:
        bins = [(max(limit.low, edges[0]), min(limit.high, edges[-1])) for limit in prior.bins]
    plot_cost_distribution(
        cost.metric, edges, counts / counts.sum(), drawn / drawn.sum(), bins, file
    )
