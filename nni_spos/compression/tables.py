"""A network beside what it became, as tables."""

from __future__ import annotations

from nni_spos.compression.pipeline import Compression
from nni_spos.conversion.table import plan_choices
from nni_spos.display.tables import Table
from nni_spos.metrics import format_metric, metric_title
from nni_spos.tasks.base import LOSS


def figures_table(found: Compression) -> Table:
    """Return costs and figures of the test split, of both networks, and their ratio."""
    rows = []
    for metric, cost in found.original_costs.items():
        after = found.result.costs[metric]
        share = f"{100 * after / cost:.1f} %" if cost else ""
        rows.append(
            [metric_title(metric), format_metric(metric, cost), format_metric(metric, after), share]
        )
    tested = found.result.test or {}
    for figure in (*found.task.figures, LOSS):
        if figure.name in found.original_test and figure.name in tested:
            before, now = found.original_test[figure.name], tested[figure.name]
            rows.append(
                [
                    f"test {figure.brief}",
                    figure.format(before),
                    figure.format(now),
                    f"{now - before:+.2f}",
                ]
            )
    return Table(["", "original", "result", "result / original"], rows)


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
