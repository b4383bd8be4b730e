"""A prior whose paths must pass a test of the user's, such as a filter of NNI's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nni_spos.errors import InfeasibleError
from nni_spos.path import Indices, Path
from nni_spos.priors.base import Prior


class FilteredPrior(Prior):
    """Draw from another prior until a path passes.

    For tests that are known as code only, e.g. NNI's ``RangeProfilerFilter``; for limits on a
    cost table, `ConstrainedPrior` needs no trials.

    Parameters
    ----------
    prior
        Where paths come from; its seed is this prior's too.
    accepts
        Whether a path, label to choice, may be trained.

    Raises
    ------
    InfeasibleError
        From `draw` and `path`: fewer than one in `MAX_DRAWS_PER_PATH` paths passed. An
        unfiltered path is never returned.
    """

    MAX_DRAWS_PER_PATH = 10_000

    def __init__(self, prior: Prior, accepts: Callable[[Path], bool]):
        super().__init__(prior.space, prior.seed)
        self.prior = prior
        self.accepts = accepts

    def draw(self, num_paths: int, generator: np.random.Generator) -> Indices:
        kept: list[np.ndarray] = []
        num_drawn = 0
        while len(kept) < num_paths:
            if num_drawn >= self.MAX_DRAWS_PER_PATH * (len(kept) + 1):
                raise InfeasibleError(
                    f"the filter let {len(kept)} of {num_drawn} random paths pass. Widen it, or "
                    "use ConstrainedPrior, which finds rare paths."
                )
            rows = self.prior.draw(max(num_paths, 64), generator)
            num_drawn += len(rows)
            paths = self.space.decode(rows)
            kept += [row for row, path in zip(rows, paths, strict=True) if self.accepts(path)]
        return np.array(kept[:num_paths], dtype=np.int64).reshape(num_paths, len(self.space))
