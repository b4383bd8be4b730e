"""The choices of a plan, and its paths at both ends."""

from __future__ import annotations

from collections.abc import Iterator

from nni_spos.conversion.plan import ConversionPlan
from nni_spos.mutables.quantization import pair_name
from nni_spos.path import Choice


def largest(plan: ConversionPlan) -> dict[str, Choice]:
    """Return the path that is the given network."""
    return {label: choices[0] for label, choices in choices_of(plan)}


def smallest(plan: ConversionPlan) -> dict[str, Choice]:
    """Return the path with the last choices."""
    return {label: choices[-1] for label, choices in choices_of(plan)}


def choices_of(plan: ConversionPlan) -> Iterator[tuple[str, list[Choice]]]:
    """Yield labels and their choices, the largest first."""
    for label, width in plan.widths.items():
        yield label, [*width.choices]
    for label, sizes in plan.kernels.items():
        yield label, [*sizes]
    for label, bits in plan.bits.items():
        yield label, [pair_name(*pair) for pair in bits.pairs]
    for label in plan.skips:
        yield label, ["block", "identity"]
