"""Hard limits on the cost of a path, as users write them: ``flops <= 330M``."""

from __future__ import annotations

import decimal
import math
import re
from dataclasses import dataclass

from nni_spos.errors import ConstraintError

GRAMMAR = (
    "METRIC <= NUMBER, METRIC >= NUMBER or NUMBER <= METRIC <= NUMBER, where a number may end "
    "in k, M or G (thousand, million, billion), in Ki, Mi or Gi (2^10, 2^20, 2^30), or in %, a "
    "share of what the dearest path costs, e.g. 'flops <= 330M' or 'flops <= 50%'"
)

_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z]*|%)"
_METRIC = r"([a-z][a-z0-9_]*(?:\([A-Za-z0-9_.:-]+\))?)"
_ONE_SIDED = re.compile(rf"\s*{_METRIC}\s*(<=|>=)\s*{_NUMBER}\s*")
_TWO_SIDED = re.compile(rf"\s*{_NUMBER}\s*<=\s*{_METRIC}\s*<=\s*{_NUMBER}\s*")
_SI_UNITS = {"G": 10**9, "M": 10**6, "k": 10**3}
_BINARY_UNITS = {"Gi": 2**30, "Mi": 2**20, "Ki": 2**10}
SHARE = "%"
_UNITS = {"": 1, SHARE: 1, **_SI_UNITS, **_BINARY_UNITS}

_EXACT = decimal.Context(prec=decimal.MAX_PREC)


@dataclass(frozen=True)
class Constraint:
    """A closed interval that one cost metric of a path must lie in.

    Parameters
    ----------
    metric
        Name of the cost, e.g. ``flops`` or ``params``.
    low, high
        Bounds in the unit of the metric, both allowed values.
    is_share
        Whether the bounds are percentages of what the dearest path costs, see `of`. For a converted
        network that is the network as it was given.

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
    >>> print(Constraint.parse("bitops <= 6.32Gi"))
    bitops <= 6.32Gi
    """

    metric: str
    low: float = -math.inf
    high: float = math.inf
    is_share: bool = False

    def __post_init__(self) -> None:
        if math.isnan(self.low) or math.isnan(self.high):
            raise ConstraintError(f"constraint on {self.metric}: a bound is not a number.")
        if self.low > self.high:
            raise ConstraintError(
                f"constraint on {self.metric}: the lower bound {_written(self.low)} exceeds "
                f"the upper bound {_written(self.high)}."
            )

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a constraint from text; a text that is not one raises with the grammar."""
        if not isinstance(text, str):
            raise ConstraintError(f"{text!r} is not a constraint. Write {GRAMMAR}.")
        if match := _ONE_SIDED.fullmatch(text):
            metric, sign, number, unit = match.groups()
            bound, is_share = _number(number, unit, text), unit == SHARE
            if sign == "<=":
                return cls(metric, high=bound, is_share=is_share)
            return cls(metric, low=bound, is_share=is_share)
        if match := _TWO_SIDED.fullmatch(text):
            low, low_unit, metric, high, high_unit = match.groups()
            if (low_unit == SHARE) != (high_unit == SHARE):
                raise ConstraintError(f"{text!r}: give both bounds in %, or none.")
            bounds = _number(low, low_unit, text), _number(high, high_unit, text)
            return cls(metric, *bounds, is_share=low_unit == SHARE)
        raise ConstraintError(f"{text!r} is not a constraint. Write {GRAMMAR}.")

    def of(self, dearest: float) -> Constraint:
        """Return the constraint in the unit of the metric.

        Parameters
        ----------
        dearest
            What the dearest path costs, of which the bounds may be shares.

        Examples
        --------
        >>> print(Constraint.parse("flops <= 50%").of(300_774_272))
        flops <= 150387136
        """
        if not self.is_share:
            return self
        return Constraint(self.metric, _part(self.low, dearest), _part(self.high, dearest))

    def allows(self, cost: float) -> bool:
        """Whether a cost lies within the bounds."""
        return self.low <= cost <= self.high

    def __str__(self) -> str:
        write = _percent if self.is_share else _written
        low, high = write(self.low), write(self.high)
        if math.isinf(self.low):
            return f"{self.metric} <= {high}"
        if math.isinf(self.high):
            return f"{self.metric} >= {low}"
        return f"{low} <= {self.metric} <= {high}"


def format_cost(cost: float, *, binary: bool = False) -> str:
    """Write a cost to six digits, with the largest unit that it reaches.

    Parameters
    ----------
    cost
        The cost.
    binary
        Whether the units are Ki, Mi and Gi (2^10, 2^20, 2^30) and not k, M and G.

    Examples
    --------
    >>> format_cost(330e6), format_cost(322_918_720), format_cost(512)
    ('330M', '322.919M', '512')
    >>> format_cost(3 * 2**19, binary=True)
    '1.5Mi'
    """
    for unit, scale in (_BINARY_UNITS if binary else _SI_UNITS).items():
        if scale <= abs(cost) < math.inf:
            return f"{cost / scale:.6g}{unit}"
    return f"{cost:.6g}"


def _number(number: str, unit: str, text: str) -> float:
    if unit not in _UNITS:
        raise ConstraintError(f"{text!r}: unknown unit '{unit}'. Write {GRAMMAR}.")
    # Scaled in decimal: 0.268028144 * 1e9 falls short of 268028144 and would refuse that cost.
    bound = float(_EXACT.multiply(decimal.Decimal(number), decimal.Decimal(_UNITS[unit])))
    if math.isinf(bound):
        raise ConstraintError(f"{text!r}: the number is too large. Leave the limit out instead.")
    return bound


def _part(percent: float, whole: float) -> float:
    """Return some percent of a cost: in decimal, since 0.29 * 100 falls short of 29."""
    if math.isinf(percent):
        return percent
    whole = whole if isinstance(whole, float) else int(whole)  # NumPy's
    share = _EXACT.multiply(decimal.Decimal(repr(percent)), decimal.Decimal(whole))
    return float(_EXACT.scaleb(share, -2))


def _written(bound: float) -> str:
    """Write a bound so that parsing gives the same number, as shortly as a unit makes it.

    SI units first, if six digits do: that is how most limits were written.
    """
    text = format_cost(bound)
    match = re.fullmatch(_NUMBER, text)
    if not (match and _number(match[1], match[2], text) == bound):
        text = _plain(bound)
    # Division by a power of two is exact, and so is what these texts mean.
    texts = [
        f"{_plain(bound / scale)}{unit}"
        for unit, scale in _BINARY_UNITS.items()
        if scale <= bound < math.inf
    ]
    return min([text, *texts], key=len)


def _percent(bound: float) -> str:
    return f"{_plain(bound)}{SHARE}"


def _plain(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
