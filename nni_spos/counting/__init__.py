"""Counting the paths of a space by cost, and drawing exactly uniformly among those of a cost.

The problem: draw uniformly among all paths whose costs lie in given intervals, also when one
path in 10^9 does, so that drawing until a path fits is hopeless.

*Counting.* A path is built label by label. What was chosen so far matters to the rest in two
ways only: how much it costs, and which choices the factors that are still open need (the
*state*; always the same one for factors over a single label). So the number of ways to complete
a path with exactly c more cost is a sum over the next label's choices of the same number for the
next label, and one table over (label, state, cost) holds all of them. Costs are counted in cells
of a grid. Several metrics at once are one grid of several axes.

*Drawing.* First a cell of the whole cost, in proportion to its number of paths, then label after
label a choice in proportion to the number of completions that it leaves. The product of these
probabilities telescopes: every path in the chosen cells has the same probability.

*Why it is exact.* Where the costs of a metric are whole multiples of one number (the multiply-adds
of the paper's space: of 6272), a cell is one cost, the cells in an interval hold exactly the
feasible paths, and nothing is rejected. Otherwise each label's cost is floored to a coarser grid.
A path's floored cost is then below its true one by at most a known slack, so every feasible path
lies in the cells from (low - slack) to high. Paths of these cells are drawn uniformly and those
whose true cost is outside of [low, high] are rejected. A feasible path is never rejected and was
as likely as every other one, so the accepted draws are uniform on the feasible paths; the grid
decides only how many draws are rejected.

*Numbers.* Completions are floats: exact integers up to 2^53, beyond that each rounded addition
adds 2^-53, so that the relative error of a path's probability is below 1e-9 for every table
within the limits here. Counts that are reported are exact Python integers from a second,
integer pass.
"""

from nni_spos.counting.counter import (
    MAX_ENTRIES,
    CountedRegion,
    PathCounter,
    cost_extent,
    describe_extent,
)
from nni_spos.counting.joint import make_region
from nni_spos.counting.plan import Options, all_options
from nni_spos.counting.region import Marginals, Region, UniformRegion

__all__ = [
    "MAX_ENTRIES",
    "CountedRegion",
    "Marginals",
    "Options",
    "PathCounter",
    "Region",
    "UniformRegion",
    "all_options",
    "cost_extent",
    "describe_extent",
    "make_region",
]
