"""Scale the widths of a network so that it costs what it is compared with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nni_spos.errors import RecipeError
from nni_spos.metrics import format_metric
from nni_spos.path import Path, PathSpace
from nni_spos.recipe.recipe import Recipe, SpaceSettings
from nni_spos.spaces import find_default
from nni_spos.supernet.building import build_analytic_costs

ARGUMENT = "stage_channels"
"""Argument of a space that is scaled."""

MULTIPLE_OF = 2
"""Widths stay even: ShuffleNetV2 halves them, FBNet divides them into two groups."""

NUM_HALVINGS = 40
"""Of the interval of multipliers; after these no two widths are told apart any more."""

LEAST, MOST = 1 / 16, 8.0
"""Smallest and largest multiplier."""

TOO_NARROW = -1.0
"""Stands for the cost of widths that a space refuses."""


@dataclass(frozen=True)
class Widths:
    """Scaled widths.

    Parameters
    ----------
    multiplier
        Of the space's widths.
    channels
        What came of it.
    """

    multiplier: float
    channels: tuple[int, ...]


def round_widths(widths: Sequence[int], multiplier: float) -> tuple[int, ...]:
    """Return widths times a number, as multiples of `MULTIPLE_OF`.

    >>> round_widths([32, 64, 130], 1.1)
    (36, 70, 144)
    """
    rounded = (int(width * multiplier / MULTIPLE_OF + 0.5) for width in widths)
    return tuple(MULTIPLE_OF * max(1, x) for x in rounded)


def scale_widths(
    recipe: Recipe, path_of: Callable[[PathSpace], Path], target_flops: float
) -> tuple[Recipe, Widths]:
    """Return the recipe with the widest stages whose network meets a number of multiply-adds.

    Parameters
    ----------
    recipe
        Its space is scaled, by one multiplier of all widths.
    path_of
        Returns the path in a space of other widths.
    target_flops
        Multiply-adds that the network may have.

    Raises
    ------
    RecipeError
        The space has no widths to scale, or none of them meets the number.
    """
    name, arguments = recipe.space.name, recipe.space.arguments
    widths = arguments.get(ARGUMENT) or find_default(name, ARGUMENT, recipe.file.parent)
    if not widths:
        raise RecipeError(f"space {name}: has no argument '{ARGUMENT}', so it cannot be scaled.")

    def scaled(channels: tuple[int, ...]) -> Recipe:
        space = SpaceSettings(name, {**arguments, ARGUMENT: list(channels)})
        return dataclasses.replace(recipe, space=space)

    refusals: dict[str, RecipeError] = {}

    @functools.cache
    def flops(channels: tuple[int, ...]) -> float:
        """Cost of a network; one that is too narrow for its space costs nothing."""
        try:
            space, costs = build_analytic_costs(scaled(channels))
        except RecipeError as problem:
            refusals["last"] = problem
            return TOO_NARROW
        return costs["flops"].price(path_of(space))

    low, high = _bisect(lambda m: flops(round_widths(widths, m)), target_flops)
    channels = round_widths(widths, low)
    if flops(channels) == TOO_NARROW:
        raise RecipeError(
            f"--target: {format_metric('flops', target_flops)} multiply-adds cannot be met: widths "
            f"times {high:.4g} have {format_metric('flops', flops(round_widths(widths, high)))}, "
            f"and narrower ones are refused ({refusals['last']})"
        )
    return scaled(channels), Widths(_shortest(widths, low), channels)


def _shortest(widths: Sequence[int], multiplier: float) -> float:
    """Return the multiplier with the fewest digits that gives the same widths.

    >>> _shortest([32, 64, 128], 1.0078), _shortest([32, 64, 128], 1.0937499)
    (1.0, 1.09)
    """
    channels = round_widths(widths, multiplier)
    shorter = (round(multiplier, digits) for digits in range(NUM_HALVINGS))
    return next((x for x in shorter if round_widths(widths, x) == channels), multiplier)


def _bisect(flops: Callable[[float], float], target: float) -> tuple[float, float]:
    """Return two multipliers side by side, of which only the second one costs too much.

    Raises RecipeError if no multiplier costs less, or more.
    """
    low, high = LEAST, 1.0
    while flops(high) <= target:
        low, high = high, 2 * high
        if low >= MOST:
            raise RecipeError(
                f"--target: widths times {low:g} still have fewer multiply-adds than "
                f"{format_metric('flops', target)}."
            )
    if flops(low) > target:
        raise RecipeError(
            f"--target: {format_metric('flops', target)} multiply-adds cannot be met: widths times "
            f"{low:g} still have {format_metric('flops', flops(low))}."
        )
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if flops(middle) <= target else (low, middle)
    return low, high
