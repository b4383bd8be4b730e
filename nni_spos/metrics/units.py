"""How costs are shown: the titles of metrics and their units, as each metric declares them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nni_spos.constraint import format_cost
from nni_spos.errors import SposError, unknown
from nni_spos.recipe.registries import METRICS

LATENCY = "latency_ms"
"""Measured, not computed; its name goes on with the device in brackets: ``latency_ms(cpu)``."""


@dataclass(frozen=True)
class Unit:
    """How the costs of a metric are shown.

    Parameters
    ----------
    title
        What an axis or a column is called; "" for the metric's name.
    suffix
        After a number and k, M or G.
    binary
        Whether the field counts in powers of two: then Ki, Mi and Gi stand for k, M and G.
    """

    title: str = ""
    suffix: str = ""
    binary: bool = False

    def format(self, cost: float) -> str:
        """Write a cost.

        >>> Unit(suffix="B").format(1_500_000), Unit(binary=True).format(6.32 * 2**30)
        ('1.5MB', '6.32Gi')
        """
        return f"{format_cost(cost, binary=self.binary)}{self.suffix}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Unit:
        """Read what `to_json` wrote; of anything else what is usable."""
        found = content if isinstance(content, Mapping) else {}
        texts = {key: found.get(key) for key in ("title", "suffix")}
        known: dict[str, Any] = {k: text for k, text in texts.items() if isinstance(text, str)}
        return cls(**known, binary=found.get("binary") is True)


_users: dict[str, Unit] = {}
"""Of metrics that neither we nor plug-ins have, as far as this process met them."""


def remember_unit(metric: str, unit: Unit) -> None:
    """Let a user's metric be shown as it says."""
    _users[metric] = unit


def unit_of(metric: str) -> Unit:
    """Return how a metric is shown; one that nobody knows as plain numbers.

    >>> unit_of("bitops").binary, unit_of("latency_ms(cpu)").title
    (True, 'latency on cpu (ms)')
    """
    if match := re.fullmatch(rf"{LATENCY}\((.*)\)", metric):
        return Unit(f"latency on {match[1]} (ms)")
    if metric in METRICS:
        with contextlib.suppress(SposError):  # of a plug-in that does not load
            return METRICS.find(metric).unit
    return _users.get(metric, Unit())


def is_latency(metric: str) -> bool:
    """Whether a metric is measured.

    >>> is_latency("latency_ms(cpu)"), is_latency("flops")
    (True, False)
    """
    return metric.partition("(")[0] == LATENCY


def unknown_metric(metric: str, known: Iterable[str]) -> str:
    """Return the sentence about a metric that a space does not have, and what can be done.

    >>> unknown_metric("flop", ["flops", "params"])
    "unknown metric 'flop'; did you mean 'flops'? Metrics: flops, params."
    """
    names = list(known)
    line = unknown("metric", metric, names)
    if metric in METRICS and not METRICS.is_of_every_space(metric):
        where = "There is such a metric" if metric in METRICS.ours else "A plug-in has it"
        line += f" {where}: list it in the recipe, 'metrics: [{metric}]'."
    return line


def metric_title(metric: str) -> str:
    """Return what an axis or a column of a cost is called.

    >>> metric_title("flops"), metric_title("latency_ms(cpu)"), metric_title("dollars")
    ('multiply-adds', 'latency on cpu (ms)', 'dollars')
    """
    return unit_of(metric).title or metric


def format_metric(metric: str, cost: float) -> str:
    """Write a cost as its metric is counted: BitOps in powers of two, sizes in bytes.

    >>> format_metric("bitops", 6.32 * 2**30), format_metric("size_bytes", 1_500_000)
    ('6.32Gi', '1.5MB')
    >>> format_metric("flops", 330e6)
    '330M'
    """
    return unit_of(metric).format(cost)
