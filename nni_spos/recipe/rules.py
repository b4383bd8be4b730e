"""Rules of keys that several sections and their components have."""

from __future__ import annotations

from collections.abc import Sequence

import schema

from nni_spos.constraint import Constraint
from nni_spos.recipe.settings import POSITIVE_INT, TEXT, Rule, either, list_of, one_of, real


def parse_constraints(limits: Sequence[str | Constraint]) -> tuple[Constraint, ...]:
    """Parse every text of a list; code may give constraints as well. Raises ConstraintError."""
    return tuple(x if isinstance(x, Constraint) else Constraint.parse(x) for x in limits)


CONSTRAINTS = list_of(
    Rule(schema.Or(str, Constraint), "text", {"type": "string"}),
    "a list such as ['flops <= 330M']",
)
QUANTILES = list_of(real(0, 1), "a list such as [0, 0.25, 0.5]")
METRIC_NAMES = list_of(TEXT, "a list such as [flops, params]")
PRECISIONS = ("auto", "32-true", "16-mixed", "bf16-mixed")
PRECISION = one_of(*PRECISIONS)
DEVICES = either(one_of("auto"), POSITIVE_INT, "auto, or a whole number > 0")
