"""A network beside what it became, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nni_spos.compression.pipeline import Compression
from nni_spos.conversion.table import plan_choices
from nni_spos.display.tables import Table
from nni_spos.metrics import format_metric, metric_title
from nni_spos.tasks.base import LOSS, Figure

OfBoth = tuple[Mapping[str, float], Mapping[str, float]]
"""Of the original and of the result, by name."""


def compared(costs: OfBoth, scores: OfBoth, figures: Sequence[Figure], split: str) -> Table:
    """Return costs and scores of a network and of what it became, and their ratio.

    Parameters
    ----------
    costs, scores
        Of both; what one of them lacks is left out.
    figures
        The scores that are shown.
    split
        What the scores are of, such as "test".
    """
    rows = []
    for metric, before in costs[0].items():
        after = costs[1][metric]
        share = f"{100 * after / before:.1f} %" if before else ""
        texts = (format_metric(metric, x) for x in (before, after))
        rows.append([metric_title(metric), *texts, share])
    for figure in figures:
        if all(figure.name in found for found in scores):
            before, after = (found[figure.name] for found in scores)
            texts = (figure.format(x) for x in (before, after))
            rows.append([f"{split} {figure.brief}", *texts, f"{after - before:+.2f}"])
    return Table(["", "original", "result", "result / original"], rows)


def figures_table(found: Compression) -> Table:
    """Return costs and figures of the test split, of both networks, and their ratio."""
    return compared(
        (found.original_costs, found.result.costs),
        (found.original_test, found.result.test or {}),
        (*found.task.figures, LOSS),
        "test",
    )


def units_table(found: Compression) -> Table:
    """Return what became of each unit, and the share of multiply-adds that it has a say in."""
    rows = []
    for label, choices in plan_choices(found.plan):
        rows.append(
            [
                label,
                choices.split(" ", 1)[0],
                str(found.result.path[label]),
                f"{100 * found.plan.shares[label]:.1f} %",
            ]
        )
    return Table(["unit", "original", "result", "multiply-adds"], rows)
