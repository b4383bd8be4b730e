"""Hard limits on the cost of a path, as users write them: ``flops <= 330M``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from nni_spos.errors import ConstraintError

GRAMMAR = (
    "METRIC <= NUMBER, METRIC >= NUMBER or NUMBER <= METRIC <= NUMBER, where a number may end "
    "in k, M or G (thousand, million, billion), e.g. 'flops <= 330M'"
)

_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z]*)"
_METRIC = r"([a-z][a-z0-9_]*(?:\([A-Za-z0-9_.:-]+\))?)"
_ONE_SIDED = re.compile(rf"\s*{_METRIC}\s*(<=|>=)\s*{_NUMBER}\s*")
_TWO_SIDED = re.compile(rf"\s*{_NUMBER}\s*<=\s*{_METRIC}\s*<=\s*{_NUMBER}\s*")
_UNITS = {"": 0, "k": 3, "M": 6, "G": 9}


@dataclass(frozen=True)
class Constraint:
    """A closed interval that one cost metric of a path must lie in.

    Parameters
    ----------
    metric
        Name of the cost, e.g. ``flops`` or ``params``.
    low, high
        Bounds in the unit of the metric, both allowed values.

    Raises
    ------
    ConstraintError
        A bound is not a number, or `low` exceeds `high`.

    Examples
    --------
    >>> limit = Constraint.parse("flops <= 330M")
    >>> limit.allows(322_918_720)
    True
    >>> print(limit)
    flops <= 330M
    """

    metric: str
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if math.isnan(self.low) or math.isnan(self.high):
            raise ConstraintError(f"constraint on {self.metric}: a bound is not a number.")
        if self.low > self.high:
            raise ConstraintError(
                f"constraint on {self.metric}: the lower bound {format_cost(self.low)} exceeds "
                f"the upper bound {format_cost(self.high)}."
            )

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a constraint from text; a text that is not one raises with the grammar."""
        if not isinstance(text, str):
            raise ConstraintError(f"{text!r} is not a constraint. Write {GRAMMAR}.")
        if match := _ONE_SIDED.fullmatch(text):
            metric, sign, number, unit = match.groups()
            bound = _number(number, unit, text)
            return cls(metric, high=bound) if sign == "<=" else cls(metric, low=bound)
        if match := _TWO_SIDED.fullmatch(text):
            low, low_unit, metric, high, high_unit = match.groups()
            return cls(metric, _number(low, low_unit, text), _number(high, high_unit, text))
        raise ConstraintError(f"{text!r} is not a constraint. Write {GRAMMAR}.")

    def allows(self, cost: float) -> bool:
        """Whether a cost lies within the bounds."""
        return self.low <= cost <= self.high

    def __str__(self) -> str:
        low, high = _written(self.low), _written(self.high)
        if math.isinf(self.low):
            return f"{self.metric} <= {high}"
        if math.isinf(self.high):
            return f"{self.metric} >= {low}"
        return f"{low} <= {self.metric} <= {high}"


def format_cost(cost: float) -> str:
    """Write a cost with the largest unit that keeps it exact to six digits.

    >>> format_cost(330e6), format_cost(322_918_720), format_cost(512)
    ('330M', '322.919M', '512')
    """
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if scale <= abs(cost) < math.inf:
            return f"{cost / scale:.6g}{unit}"
    return f"{cost:.6g}"


def _number(number: str, unit: str, text: str) -> float:
    if unit not in _UNITS:
        raise ConstraintError(f"{text!r}: unknown unit '{unit}'. Write {GRAMMAR}.")
    mantissa, _, exponent = number.lower().partition("e")
    # Scaled in decimal: 0.268028144 * 1e9 falls short of 268028144 and would refuse that cost.
    bound = float(f"{mantissa}e{int(exponent or 0) + _UNITS[unit]}")
    if math.isinf(bound):
        raise ConstraintError(f"{text!r}: the number is too large. Leave the limit out instead.")
    return bound


def _written(bound: float) -> str:
    """Write a bound so that parsing gives the same number; with a unit if six digits do."""
    text = format_cost(bound)
    match = re.fullmatch(_NUMBER, text)
    if match and _number(match[1], match[2], text) == bound:
        return text
    return repr(float(bound)).removesuffix(".0")
