"""The paper's plain prior: every path alike."""

from __future__ import annotations

import numpy as np

from nni_spos.path import Choice, Indices
from nni_spos.priors.base import Prior


class UniformPrior(Prior):
    """Draw every path with the same probability, i.e. every unit's choice independently.

    Examples
    --------
    >>> from nni_spos.path import PathSpace
    >>> prior = UniformPrior(PathSpace({"layer_1": ["k3", "k5"], "layer_2": ["k3", "k5"]}), seed=1)
    >>> prior.path(7) == prior.path(7)
    True

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 3.2.
    """

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        num_choices = np.array(self.space.num_choices)
        return generator.integers(0, num_choices, size=(num_paths, len(num_choices)))

    def marginals(self) -> dict[str, dict[Choice, float]]:
        """Return the probability of each choice of each label."""
        return {
            label: dict.fromkeys(choices, 1 / len(choices)) for label, choices in self.space.items()
        }

    def describe(self) -> list[str]:
        return ["all alike"]
