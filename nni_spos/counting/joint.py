"""The region of several limits at once, guided by as many of their tables as can be counted."""

from __future__ import annotations

from collections.abc import Sequence

from nni_spos.constraint import Constraint
from nni_spos.cost_table import CostTable
from nni_spos.counting.counter import MAX_ENTRIES, CountedRegion, PathCounter
from nni_spos.counting.plan import Options
from nni_spos.counting.region import Region, UniformRegion
from nni_spos.errors import CostError
from nni_spos.path import PathSpace


def make_region(
    space: PathSpace,
    tables: Sequence[CostTable],
    limits: Sequence[Constraint],
    options: Options | None = None,
    max_entries: int = MAX_ENTRIES,
) -> Region:
    """Return the paths that keep all limits, in the form that is drawn from best.

    Two metrics are usually counted together; of more, those that the fewest paths keep, and draws
    that break another limit are rejected (`Region.acceptance` says how many are not). Tables that
    cannot be counted at all are left to rejection of uniform draws.

    Parameters
    ----------
    space
        Labels and their choices.
    tables, limits
        Cost tables of different metrics, and one constraint for each.
    options
        For every label the positions of the choices that a path may make; by default all.
    max_entries
        Size of the table for drawing.
    """
    pairs = list(zip(tables, limits, strict=True))
    for number in range(len(pairs), 0, -1):
        if number == len(pairs) - 1:  # all together was too much
            pairs.sort(key=lambda pair: _num_paths(pair[0], pair[1], options, max_entries))
        counted, others = pairs[:number], pairs[number:]
        try:
            counter = PathCounter([table for table, _ in counted], options, max_entries)
        except CostError:
            continue
        return CountedRegion(
            counter,
            [limit for _, limit in counted],
            [table for table, _ in others],
            [limit for _, limit in others],
        )
    return UniformRegion(space, tables, limits, options)


def _num_paths(
    table: CostTable, limit: Constraint, options: Options | None, max_entries: int
) -> float:
    """Return how many paths keep one limit, infinity where they cannot be counted."""
    try:
        return PathCounter([table], options, max_entries).within(limit).num_proposals
    except CostError:
        return float("inf")
