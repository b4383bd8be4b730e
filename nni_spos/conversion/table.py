"""What of a network may be chosen, as a table."""

from __future__ import annotations

from collections.abc import Iterator

from nni_spos.conversion.choices import choices_of
from nni_spos.conversion.plan import ConversionPlan
from nni_spos.display.tables import LEFT, RIGHT, Table, as_text


def describe_plan(plan: ConversionPlan) -> str:
    """Return units, their choices and their share of the network's multiply-adds, then the rest."""
    rows = [
        [label, choices, f"{100 * plan.shares[label]:.1f} %"]
        for label, choices in plan_choices(plan)
    ]
    lines = [as_text(Table(["unit", "choices", "multiply-adds"], rows), [LEFT, LEFT, RIGHT])]
    if plan.left:
        lines += ["", "left as they are:", *(f"  {part}: {reason}" for part, reason in plan.left)]
    return "\n".join(lines)


def plan_choices(plan: ConversionPlan) -> Iterator[tuple[str, str]]:
    """Yield labels and their choices as texts."""
    for label, choices in choices_of(plan):
        yield label, " ".join(map(str, choices))
