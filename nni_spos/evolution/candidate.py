"""A path under evaluation, with what is known about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from nni_spos.path import Path


class State(enum.Enum):
    """What has become of a candidate."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Candidate:
    """A path, its costs and, once told, its results.

    Parameters
    ----------
    path
        Label to choice.
    number
        Position in the order of proposal, from 0; breaks ties between equal scores.
    generation
        Generation that proposed it, from 0.
    costs
        Cost metrics that are known before evaluation, e.g. ``flops``, ``params``.
    state
        Pending until a result or a failure is told.
    metrics
        Results, e.g. ``top1`` and ``top5`` in percent, ``loss``.
    reason
        Why it failed.
    """

    path: Path
    number: int
    generation: int
    costs: dict[str, float]
    state: State = State.PENDING
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
