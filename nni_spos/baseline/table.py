"""One table of the winner and its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from nni_spos.baseline.retraining import BaselineResult
from nni_spos.constraint import format_metric
from nni_spos.report.tables import NOT_RECORDED, Table, format_duration
from nni_spos.report.titles import metric_title

NOT_YET = "-"


def baseline_table(results: Sequence[BaselineResult]) -> Table:
    """Return names, costs, accuracy on the test split and time of a training.

    Of several seeds there is the mean, with the standard deviation and their number.
    """
    metrics = list(dict.fromkeys(metric for result in results for metric in result.costs))
    header = ["network", *map(metric_title, metrics), "widths", "test top-1 (%)", "training time"]
    return Table(header, [_row(result, metrics) for result in results])


def format_spread(values: Sequence[float]) -> str:
    """Return a mean, with the standard deviation and the number of values if they are several.

    >>> format_spread([70.0, 71.0, 72.0]), format_spread([70.0]), format_spread([])
    ('71.00 ± 1.00 (3)', '70.00', '-')
    """
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else NOT_YET
    return f"{fmean(values):.2f} ± {stdev(values):.2f} ({len(values)})"


def _row(result: BaselineResult, metrics: Sequence[str]) -> list[str]:
    costs = [
        format_metric(metric, result.costs[metric]) if metric in result.costs else NOT_YET
        for metric in metrics
    ]
    widths = ""
    if result.widths is not None:
        widths = (
            f"x{result.widths['multiplier']:.4g}: {', '.join(map(str, result.widths['channels']))}"
        )
    top1 = format_spread([test["top1"] for test in result.tests])
    time = NOT_RECORDED if result.cost is None else format_duration(result.cost.seconds)
    return [result.name, *costs, widths, top1, time]
