"""Errors that a user can cause and mend; the command line prints them as one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MAX_LENGTH = 800
"""Characters of a message."""

_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


class SposError(Exception):
    """Base of every error about the user's input; anything else is a bug of ours.

    The text is one line of at most `MAX_LENGTH` characters, whatever a stranger's file put into
    it: line breaks become spaces, what controls a terminal is escaped, the middle is left out.
    """

    def __init__(self, text: object = ""):
        super().__init__(one_line(str(text)))


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


class NotFiniteError(SposError):
    """A network gives, or a training has come to, what is no number."""


NOT_FINITE = "the outputs of the network are not finite"


class ProcessError(SposError):
    """A process that trains with others was killed."""


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


class EvaluatorError(ExperimentError):
    """No path can be scored here, whichever it is."""


class FailedPathError(ExperimentError):
    """A path cannot be scored, for what its network does; others may well be."""


class FileWarning(UserWarning):
    """A file is damaged or cannot be written, and it goes on without; one line, as errors are."""


class FormatWarning(UserWarning):
    """A network runs in another memory format than was asked for; one line, as errors are."""


class BusyWarning(UserWarning):
    """Other processes need the cores of this machine too; one line, as errors are."""


class RehearsalError(SpaceError):
    """The code of a space fails in a training or a scoring as they would be run."""


class ScoringWarning(RuntimeWarning):
    """Paths are scored in another way than usual, or cannot be quite; one line, as errors are."""


class StaleWarning(UserWarning):
    """A result is of another model, other images or other settings than today's; one line."""


def one_line(text: str) -> str:
    """Return a text as one line that can be printed anywhere.

    >>> one_line("first\\n  second \\x1b[31m")
    'first second \\\\x1b[31m'
    >>> len(one_line("a" * 10_000)) == MAX_LENGTH
    True
    """
    # Cut first: what follows takes time for every character.
    text = _shortened(text)
    if not text.isprintable():
        text = _BREAKS.sub(" ", text.strip())
        text = "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text)
    return _shortened(text)


def _shortened(text: str) -> str:
    """Leave out the middle: a message begins with the file and ends with what to do."""
    if len(text) <= MAX_LENGTH:
        return text
    end = MAX_LENGTH // 4
    return f"{text[: MAX_LENGTH - end - 5]} ... {text[-end:]}"


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, or ``""``.

    Examples
    --------
    >>> nearest("epoch", ["epochs", "batch_size"])
    "; did you mean 'epochs'?"
    """
    matches = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
