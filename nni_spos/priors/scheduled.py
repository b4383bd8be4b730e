"""One prior after another, each for some steps of a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nni_spos.errors import PathError
from nni_spos.path import Indices, Path
from nni_spos.priors.base import Prior


class ScheduledPrior(Prior):
    """Draw from other priors first, each for some steps, and then from a prior.

    Parameters
    ----------
    prior
        Where paths come from after all phases, the same ones that it gives for these steps by
        itself; its seed is this prior's too.
    phases
        The step in which each phase ends, which it does not contain, and where its paths come from;
        in rising order.

    Raises
    ------
    PathError
        A prior is of another space.

    Notes
    -----
    `draw`, which knows of no step, draws from `prior`.

    Examples
    --------
    >>> from nni_spos.cost_table import CostTable, Factor
    >>> from nni_spos.path import PathSpace
    >>> from nni_spos.priors.constrained import ConstrainedPrior
    >>> from nni_spos.priors.uniform import UniformPrior
    >>> space = PathSpace({"bits": [2, 4, 8]})
    >>> cost = CostTable("bitops", space, 0, [Factor(("bits",), np.array([2, 4, 8]))])
    >>> prior = ScheduledPrior(UniformPrior(space), [(50, ConstrainedPrior(space, cost, (4, 8)))])
    >>> sorted({prior.path(step)["bits"] for step in range(50)})
    [4, 8]
    >>> sorted({prior.path(step)["bits"] for step in range(50, 100)})
    [2, 4, 8]
    """

    def __init__(self, prior: Prior, phases: Sequence[tuple[int, Prior]]):
        super().__init__(prior.space, prior.seed)
        if any(phase.space != prior.space for _, phase in phases):
            raise PathError("the prior of a phase was made for another space.")
        self.prior = prior
        self.phases = tuple(phases)

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        return self.prior.draw(num_paths, generator)

    def path(self, step: int) -> Path:
        return self._at(step).path(step)

    def paths(self, step: int, num_paths: int) -> list[Path]:
        return self._at(step).paths(step, num_paths)

    def _at(self, step: int) -> Prior:
        return next((prior for end, prior in self.phases if step < end), self.prior)
