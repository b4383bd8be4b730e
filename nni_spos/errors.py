"""Errors that a user can cause and mend; the command line prints them as one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from nni_spos.values import shown

MAX_LENGTH = 800
"""Characters of a message."""

_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


class SposError(Exception):
    """Base of every error that a user can mend; any other error is a bug of ours.

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
    """The outputs of a network, or the loss of a training, are not finite."""


NOT_FINITE = "the outputs of the network are not finite"


class ProcessError(SposError):
    """A process that trains with others was killed."""


class DataError(SposError):
    """A data set is missing or is not in the expected form."""


class RecipeError(SposError):
    """A recipe, NNI configuration or class argument is not valid."""


class ProjectError(SposError):
    """A new project cannot be written."""


class ExportError(SposError):
    """A network cannot be exported, or its file cannot be run."""


class SpaceError(SposError):
    """A choice unit, or a layer whose arguments are choices, cannot be built."""


class QuantizationError(SposError):
    """The quantizers do not have this bit width or clipping value."""


class SearchError(SposError):
    """A search cannot go on, or got a result that it did not ask for."""


class ExperimentError(SposError):
    """An NNI experiment cannot be started, reached or read."""


class EvaluatorError(ExperimentError):
    """No path can be scored here; the fault is not in a path."""


class FailedPathError(ExperimentError):
    """This path cannot be scored, because of its network. Other paths may be fine."""


class FileWarning(UserWarning):
    """A file is damaged or cannot be written. The work goes on without it."""


class InitialWeightsWarning(UserWarning):
    """A supernet begins with some weights of a file, and others do not fit."""


class FormatWarning(UserWarning):
    """A network runs in another memory format than the recipe asks for."""


class BusyWarning(UserWarning):
    """Other processes also use the cores of this machine."""


class RehearsalError(SpaceError):
    """The code of a space fails when a step of training or scoring is tried."""


class UserCodeError(SposError):
    """The code of a module beside the recipe raises an error; the line says where."""


class ScoringWarning(RuntimeWarning):
    """Paths are scored in another way than usual, or their scores are not exact."""


class StaleWarning(UserWarning):
    """A result belongs to another model, other images or other settings than today's."""


def error_as_data(problem: SposError) -> dict[str, str]:
    """Return an error as JSON values, for another process.

    >>> error_from_data(error_as_data(InfeasibleError("no path is so small")))
    InfeasibleError('no path is so small')
    """
    return {"error": type(problem).__name__, "text": str(problem)}


def error_from_data(data: object) -> SposError:
    """Return the error that another process gave. Raises ValueError if it is none."""
    if not isinstance(data, dict) or not isinstance(data.get("text"), str):
        raise ValueError("is no error")
    kinds = [SposError]
    for kind in kinds:  # grows while it is walked
        kinds += kind.__subclasses__()
    known = {kind.__name__: kind for kind in kinds}
    if data.get("error") not in known:
        raise ValueError("is no error")
    return known[data["error"]](data["text"])


class ImagesWarning(UserWarning):
    """Nobody can know whether the images of a data set have changed; one line, as errors are."""


def text_of(problem: BaseException) -> str:
    """Return the text of an error for the middle of a message.

    >>> text_of(ValueError("no  number.")), text_of(ValueError())
    ('no number', 'ValueError')
    """
    return " ".join(str(problem).split()).rstrip(".") or type(problem).__name__


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


def unknown(kind: str, name: object, known: Iterable[str], *, also: str = "") -> str:
    """Return the sentence about a name that stands for nothing: the nearest, and the known ones.

    Parameters
    ----------
    kind
        What it should be the name of, in the singular: ``space``, ``key``, ``data set``.
    name
        As somebody wrote it.
    known
        The names that there are, in the order in which they are listed.
    also
        What else is allowed, in words, e.g. ``module:Class``.

    Examples
    --------
    >>> unknown("key", "epoch", ["epochs", "steps"])
    "unknown key 'epoch'; did you mean 'epochs'? Keys: epochs, steps."
    >>> unknown("search", "x", ["random"], also="module:Class")
    "unknown search 'x'. Searches: random, or module:Class."
    >>> unknown("label", 3, [])
    'unknown label 3. There are no labels.'
    """
    names = list(known)
    kinds = kind + ("es" if kind.endswith(("s", "x", "ch")) else "s")
    listed = ", or ".join(filter(None, (", ".join(names), also)))
    rest = f"{kinds[0].upper()}{kinds[1:]}: {listed}." if listed else f"There are no {kinds}."
    return f"unknown {kind} {shown(name)}{nearest(name, names) or '.'} {rest}"
