"""One table of the winner and its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from nni_spos.baseline.retraining import BaselineResult
from nni_spos.display.numbers import NOT_RECORDED, format_duration
from nni_spos.display.tables import Table
from nni_spos.metrics import format_metric, metric_title
from nni_spos.tasks.base import Figure, Task
from nni_spos.tasks.lookup import main_figure

NOT_YET = "-"


def baseline_table(results: Sequence[BaselineResult], task: Task | None = None) -> Table:
    """Return names, costs, the task's objective on the test split and time of a training.

    Of several seeds there is the mean, with the standard deviation and their number.

    Parameters
    ----------
    results
        A row each.
    task
        That of the recipe, where there is one; by default the task that the results were recorded
        with, of which only the names of figures are known if it is a user's.
    """
    metrics = list(dict.fromkeys(metric for result in results for metric in result.costs))
    figure = _figure_of(results) if task is None else task.figure(task.objective)
    title = f"test {figure.short_title}"
    header = ["network", *map(metric_title, metrics), "widths", title, "training time"]
    return Table(header, [_row(result, metrics, figure) for result in results])


def _figure_of(results: Sequence[BaselineResult]) -> Figure:
    tested = next((x for x in results if x.tests), None)
    return main_figure({"task": tested.task}, tested.tests[0]) if tested else Figure("result")


def format_spread(values: Sequence[float], figure: Figure) -> str:
    """Return a mean, with the standard deviation and the number of values if they are several.

    >>> top1 = Figure("top1", unit="%", digits=2)
    >>> format_spread([70.0, 71.0, 72.0], top1), format_spread([70.0], top1)
    ('71.00 ± 1.00 (3)', '70.00')
    >>> format_spread([0.5], Figure("r2")), format_spread([], top1)
    ('0.5000', '-')
    """
    if len(values) < 2:
        return figure.number(values[0]) if values else NOT_YET
    return f"{figure.number(fmean(values))} ± {figure.number(stdev(values))} ({len(values)})"


def _row(result: BaselineResult, metrics: Sequence[str], figure: Figure) -> list[str]:
    costs = [
        format_metric(metric, result.costs[metric]) if metric in result.costs else NOT_YET
        for metric in metrics
    ]
    widths = ""
    if result.widths is not None:
        widths = (
            f"x{result.widths['multiplier']:.4g}: {', '.join(map(str, result.widths['channels']))}"
        )
    tests = [test[figure.name] for test in result.tests if figure.name in test]
    tested = format_spread(tests, figure)
    time = NOT_RECORDED if result.cost is None else format_duration(result.cost.seconds)
    return [result.name, *costs, widths, tested, time]
