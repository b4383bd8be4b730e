"""Numbers of channels as choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real
from typing import TypeAlias

import nni
from nni.mutable import Categorical, MutableExpression

from nni_spos.errors import SpaceError

Channels: TypeAlias = int | MutableExpression
"""A number of channels, or a choice between such."""

SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
"""Multiples of a layer's width, as in the paper's released code."""


def scale_channels(channels: int, scale: float, multiple_of: int = 1) -> int:
    """Return a scaled number of channels.

    It is rounded down, as in the paper's released code, or, with `multiple_of`, to the nearest
    multiple (halves up), but not below one. The product is exact: 35 x 1.4 is 49.

    Examples
    --------
    >>> [scale_channels(32, scale) for scale in (0.2, 1.0, 1.6)]
    [6, 32, 51]
    >>> [scale_channels(32, scale, multiple_of=8) for scale in (0.2, 1.0, 1.6)]
    [8, 32, 48]
    """
    exact = channels * Fraction(str(scale))
    if multiple_of == 1:
        return math.floor(exact)
    return max(multiple_of, math.floor(exact / multiple_of + Fraction(1, 2)) * multiple_of)


def channel_choice(
    label: str, channels: int, scales: Sequence[float] = SCALES, multiple_of: int = 1
) -> Categorical[int]:
    """Make the choice between numbers of channels, for arguments of layers.

    Use the same object, or expressions such as ``choice * 3``, wherever the channels go in and
    out.

    Parameters
    ----------
    label
        Name of the choice; one that occurs again is the same choice.
    channels
        The number at scale 1, at least 1.
    scales
        Multiples of it. Scales that round to the same number are one choice.
    multiple_of
        Round to multiples of this number; see `scale_channels`.

    Returns
    -------
    NNI's choice between whole numbers, in the order of the scales.

    Raises
    ------
    SpaceError
        There are no scales, one is not a number above 0 or gives no channels, or `channels` or
        `multiple_of` is not a whole number of at least 1.

    Examples
    --------
    >>> channel_choice("width", 32, scales=[0.5, 1, 1.5])
    Categorical([16, 32, 48], label='width')
    """
    for name, value in (("channels", channels), ("multiple_of", multiple_of)):
        if type(value) is not int or value < 1:
            raise SpaceError(
                f"channel_choice('{label}'): {name} must be a whole number of at least 1, got "
                f"{value!r}."
            )
    if len(scales) == 0:
        raise SpaceError(f"channel_choice('{label}'): needs at least one scale.")
    numbers: list[int] = []
    for scale in scales:
        if not isinstance(scale, Real) or not 0 < scale < math.inf:
            raise SpaceError(
                f"channel_choice('{label}'): scales must be numbers above 0, got {scale!r}."
            )
        numbers.append(scale_channels(channels, scale, multiple_of))
        if numbers[-1] < 1:
            raise SpaceError(
                f"channel_choice('{label}'): {channels} channels at scale {scale} are none. "
                "Use larger scales, or more channels."
            )
    return nni.choice(label, list(dict.fromkeys(numbers)))
