"""A space of twelve paths, and what they cost, for the suites of what needs no network."""

from __future__ import annotations

import numpy as np

from nni_spos.cost_table import CostTable, Factor
from nni_spos.path import PathSpace

SPACE = PathSpace({"layer": ["k3", "k5"], "width": [16, 32, 64], "bits": [2, 4]})

COSTS = {
    # Width and bits multiply: the 12 paths cost 32, 64, 64, 128, 128, 256, and 9 more with k5.
    "flops": CostTable(
        "flops",
        SPACE,
        0,
        [
            Factor(("layer",), np.array([0, 9])),
            Factor(("bits", "width"), np.outer([2, 4], [16, 32, 64])),
        ],
    ),
    "params": CostTable("params", SPACE, 5, [Factor(("width",), np.array([1, 2, 4]))]),
}
"""Tables by metric."""
