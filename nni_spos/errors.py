"""Errors that a user can cause and mend; the command line prints them as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SposError(Exception):
    """Base of every error about the user's input; anything else is a bug of ours."""


class PathError(SposError):
    """A path, or a search space read from JSON, is not what it should be."""


class ConstraintError(SposError):
    """A constraint cannot be understood."""


class InfeasibleError(ConstraintError):
    """No path of the space meets the constraints."""


class CostError(SposError):
    """A cost table is damaged, belongs to another space or cannot be built."""


class CheckpointError(SposError):
    """A checkpoint is missing, damaged or belongs to something else."""


class DataError(SposError):
    """A data set is missing or is not in the expected form."""


class RecipeError(SposError):
    """A recipe, NNI configuration or class argument is not valid."""


class SpaceError(SposError):
    """A choice unit, or a layer whose arguments are choices, cannot be built."""


class QuantizationError(SposError):
    """A bit width, or a clipping value, is not one that the quantizers have."""


class SearchError(SposError):
    """A search cannot go on, or was given a result that it never asked for."""


class ExperimentError(SposError):
    """An NNI experiment could not be started, reached or read."""


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, or ``""``.

    Examples
    --------
    >>> nearest("epoch", ["epochs", "batch_size"])
    "; did you mean 'epochs'?"
    """
    matches = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
