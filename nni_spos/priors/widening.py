"""A first phase of training that begins with some choices of a label and lets the others in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nni_spos.path import Choice, Indices, Path
from nni_spos.priors.base import Prior


class WideningPrior(Prior):
    """Begin with the first choice of some labels, admit the others one by one, then follow a prior.

    In step t of the phase, a label of n choices may take the first ``1 + floor((t - hold) * n /
    (steps - hold))`` of them, before step `hold` the first alone.

    Parameters
    ----------
    prior
        Where paths come from after the phase, the same ones that it gives for these steps by
        itself; its seed is this prior's too.
    ordered
        Labels, and all their choices in the order in which they are admitted.
    steps
        Length of the phase in steps; 0 for none.
    hold
        Steps of it with the first choices alone.

    Notes
    -----
    In the phase all paths that are admitted are alike, whatever `prior` prefers, and **no limit on
    a cost holds**. `draw`, which knows of no step, draws from `prior`.

    Examples
    --------
    >>> from nni_spos.path import PathSpace
    >>> from nni_spos.priors.uniform import UniformPrior
    >>> space = PathSpace({"layer": ["k3", "k5"], "bits": [2, 4]})
    >>> prior = WideningPrior(UniformPrior(space), {"bits": [4, 2]}, steps=100, hold=40)
    >>> sorted({prior.path(step)["bits"] for step in range(70)})
    [4]
    >>> sorted({prior.path(step)["bits"] for step in range(70, 100)})
    [2, 4]
    """

    def __init__(
        self, prior: Prior, ordered: Mapping[str, Sequence[Choice]], steps: int, hold: int = 0
    ):
        super().__init__(prior.space, prior.seed)
        self.prior = prior
        self.labels = tuple(ordered)
        self.steps = steps
        self.hold = hold
        self._choices = [ordered.get(label, choices) for label, choices in self.space.items()]
        self._num_choices = np.array(self.space.num_choices)
        self._is_ordered = np.array([label in ordered for label in self.space])

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        return self.prior.draw(num_paths, generator)

    def path(self, step: int) -> Path:
        return self.paths(step, 1)[0]

    def paths(self, step: int, num_paths: int) -> list[Path]:
        if step >= self.steps:
            return self.prior.paths(step, num_paths)
        # The 1 keeps these numbers apart from those that the prior draws its blocks with.
        generator = np.random.default_rng([self.seed, step, 1])
        widening = max(1, self.steps - self.hold)
        admitted = 1 + max(0, step - self.hold) * self._num_choices // widening
        bounds = np.where(self._is_ordered, admitted, self._num_choices)
        rows = [generator.integers(0, bounds).tolist() for _ in range(num_paths)]
        return [
            {
                label: choices[i]
                for label, choices, i in zip(self.space, self._choices, row, strict=True)
            }
            for row in rows
        ]
