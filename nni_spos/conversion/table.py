"""What of a network may be chosen, as a table."""

from __future__ import annotations

from collections.abc import Iterator

from nni_spos.conversion.plan import Plan
from nni_spos.display.tables import LEFT, RIGHT, Table, as_text
from nni_spos.mutables.quantization import pair_name


def describe_plan(plan: Plan) -> str:
    """Return units, their choices and their share of the network's multiply-adds, then the rest."""
    rows = [
        [label, choices, f"{100 * plan.shares[label]:.1f} %"]
        for label, choices in plan_choices(plan)
    ]
    lines = [as_text(Table(["unit", "choices", "multiply-adds"], rows), [LEFT, LEFT, RIGHT])]
    if plan.left:
        lines += ["", "left as they are:", *(f"  {part}: {reason}" for part, reason in plan.left)]
    return "\n".join(lines)


def plan_choices(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yield labels and their choices as texts."""
    for label, width in plan.widths.items():
        yield label, " ".join(map(str, width.choices))
    for label, sizes in plan.kernels.items():
        yield label, " ".join(map(str, sizes))
    for label, bits in plan.bits.items():
        yield label, " ".join(pair_name(*pair) for pair in bits.pairs)
    for label in plan.skips:
        yield label, "block identity"
