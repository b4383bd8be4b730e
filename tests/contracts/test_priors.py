"""Our priors keep the promises of every prior."""

import numpy as np
import pytest

from nni_spos.priors import (
    ConstrainedPrior,
    FilteredPrior,
    UniformPrior,
    WarmUpPrior,
    quantile_bins,
)
from nni_spos.testing.priors import CHECKS, PriorCase
from nni_spos.testing.small_space import COSTS, SPACE

COST = COSTS["flops"]
BINS = [(32, 64), (73, 265)]
CHEAP, DEAR = 1 / 8, 1 / 16  # of the 4 paths of the first bin and the 8 of the second, each halved
CONSTRAINED = np.array([CHEAP, CHEAP, CHEAP, DEAR, DEAR, DEAR, CHEAP, DEAR, DEAR, DEAR, DEAR, DEAR])

# Name to a prior over SPACE, and the probabilities of SPACE's paths in the order of enumerate().
PRIORS = {
    "uniform": (lambda seed: UniformPrior(SPACE, seed=seed), np.full(12, 1 / 12)),
    "constrained": (lambda seed: ConstrainedPrior(SPACE, COST, BINS, seed=seed), CONSTRAINED),
    "rejection": (
        lambda seed: ConstrainedPrior(SPACE, COST, BINS, seed=seed, method="rejection"),
        CONSTRAINED,
    ),
    "one bin": (
        lambda seed: ConstrainedPrior(SPACE, COST, (32, 64), seed=seed),
        np.where(CONSTRAINED == CHEAP, 1 / 4, 0),
    ),
    # Thirds of the costs part the 12 paths into three times four.
    "equal shares": (
        lambda seed: ConstrainedPrior(SPACE, COST, quantile_bins(COST, (0, 1 / 3, 2 / 3, 1)), seed),
        np.full(12, 1 / 12),
    ),
    "filtered": (
        lambda seed: FilteredPrior(UniformPrior(SPACE, seed), lambda path: path["layer"] == "k3"),
        np.where(np.arange(12) < 6, 1 / 6, 0),
    ),
    # Short enough that the distribution is the one after it.
    "warm-up": (
        lambda seed: WarmUpPrior(ConstrainedPrior(SPACE, COST, BINS, seed), ["width"], steps=2),
        CONSTRAINED,
    ),
}


class MadeCase(PriorCase):
    """A prior that is made in Python."""

    def __init__(self, make, probabilities=None):
        super().__init__("", probabilities=probabilities)
        self.make = make


CASES = {
    **{name: MadeCase(*case) for name, case in PRIORS.items()},
    "uniform in a recipe": PriorCase("uniform", probabilities=np.full(12, 1 / 12)),
    "constrained in a recipe": PriorCase(
        "constrained",
        probabilities=CONSTRAINED,
        prior_bins=[f"{low} <= flops <= {high}" for low, high in BINS],
    ),
    # The suite can do without the probabilities of paths.
    "of unknown probabilities": MadeCase(PRIORS["constrained"][0]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_contract_of_priors(check, case):
    check(CASES[case])
