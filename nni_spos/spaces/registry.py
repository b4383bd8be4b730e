"""Build the space that a recipe names: one of ours, a plug-in's, or ``module:Class``."""

from __future__ import annotations

import contextlib
import enum
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from nni.mutable import LabeledMutable
from nni.mutable.exception import SampleValidationError
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context

from nni_spos.components import explain
from nni_spos.errors import QuantizationError, RecipeError, SpaceError, unknown
from nni_spos.mutables.advice import kept_choice_advice, plain_layer_advice
from nni_spos.path import Choice
from nni_spos.recipe.conversion_settings import CONVERTED
from nni_spos.recipe.image_size import ImageSize, height_width
from nni_spos.recipe.settings import rule_of
from nni_spos.recipe.spaces import SPACES, space_parameters
from nni_spos.spaces.preset import Preset
from nni_spos.values import shown

REFUSALS: tuple[type[Exception], ...] = (
    TypeError,
    ValueError,
    SpaceError,
    QuantizationError,
    # PyTorch, about sizes that it cannot have.
    RuntimeError,
    OverflowError,
    MemoryError,
)
"""How our spaces refuse arguments; what else they raise is a bug."""


class Form(enum.Enum):
    """What a space is built for; decides ``affine`` of classes that take it."""

    SUPERNET = "supernet"
    """Shared weights: BatchNorm without weights and biases."""
    SUBNET = "subnet"
    """Retraining one path, and its costs: BatchNorm with them."""


def build_space(
    name: str,
    arguments: Mapping[str, Any],
    form: Form,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    input_size: ImageSize | None = None,
    task_arguments: Mapping[str, Any] | None = None,
    path: Mapping[str, Choice] | None = None,
    folder: FilePath | None = None,
) -> ModelSpace:
    """Build a space by name, or the network of one of its paths.

    Parameters
    ----------
    name
        One of `SPACES`, or ``module:Class``: only name what you trust, importing runs its code.
    arguments
        Keyword arguments for the class.
    form
        Gives ``affine`` to a class that has the parameter, unless `arguments` do.
    num_classes, in_channels, input_size
        Of the data; given to a class that has the parameter, unless `arguments` do. `input_size` is
        (height, width) where these differ.
    task_arguments
        What a task tells a space beside these, such as ``num_outputs``; given in the same way.
    path
        Label to choice: build the network of this path, which the space has, with the weights
        that its constructor draws for it.
    folder
        Where a user's module is looked for before Python's path is: the recipe's folder.

    Raises
    ------
    RecipeError
        Unknown name, module, class or argument, or values that the class refuses; for a user's
        class, whatever its constructor raises. Or it takes square images only.
    """
    factory = SPACES.find(name, folder)
    parameters = space_parameters(factory)
    offered = {
        "affine": form is Form.SUBNET,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "input_size": input_size,
        **(task_arguments or {}),
    }
    if name == CONVERTED:  # whose network may be a user's
        offered["folder"] = None if folder is None else str(folder)
    given = {k: v for k, v in offered.items() if k in parameters and v is not None}
    _check_arguments(name, arguments, parameters)
    _check_size(name, {**given, **arguments}.get("input_size"), parameters)
    refusals = REFUSALS if name in SPACES.ours else (Exception,)
    try:
        with construction(path):
            space = factory(**{**given, **arguments})
    except refusals as problem:
        seen: Exception = problem
        if advice := plain_layer_advice(problem):
            seen = SpaceError(advice).with_traceback(problem.__traceback__)
        raise RecipeError(f"space {name}: {explain(seen, folder)}") from problem
    if not isinstance(space, ModelSpace):
        raise RecipeError(f"space {name}: is a {type(space).__name__}, not an NNI ModelSpace.")
    if advice := kept_choice_advice(space):
        raise RecipeError(f"space {name}: {advice}")
    _check_labels(name, space)
    return space


def _check_arguments(
    name: str, arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    kinds = {parameter.kind for parameter in parameters.values()}
    known = [
        key
        for key, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    strange = [key for key in arguments if key not in known]
    if strange and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise RecipeError(f"space {name}: {unknown('argument', strange[0], known)}")
    for key, value in arguments.items():
        rule = rule_of(parameters[key].annotation) if key in parameters else None
        if rule and not rule.accepts(value):
            raise RecipeError(f"space {name}.{key}: got {shown(value)}; must be {rule.words}.")


def _check_size(name: str, size: Any, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse images that are not square for a space that takes one number. Raises RecipeError."""
    if size is None or isinstance(size, int) or "input_size" not in parameters:
        return
    rule = rule_of(parameters["input_size"].annotation)
    if rule and not rule.accepts(size):
        raise RecipeError(
            f"space {name}: takes square images only: its argument input_size is {rule.words}, and "
            f"the images are {size[0]} pixels high and {size[1]} wide. Let it be "
            "int | Sequence[int], a number or (height, width), or give a square image_size."
        )


@contextlib.contextmanager
def construction(path: Mapping[str, Choice] | None) -> Iterator[None]:
    """Build the network of a path, if there is one, and let NNI raise errors without logging them.

    Raises
    ------
    SpaceError
        NNI found no choice that a label can have in all its places.
    """

    def is_no_error(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    logger = logging.getLogger("nni.nas.nn.pytorch.base")
    logger.addFilter(is_no_error)
    try:
        with (
            warnings.catch_warnings(),
            model_context(dict(path)) if path is not None else contextlib.nullcontext(),
        ):
            # Of a width of 0, which is refused in a line of its own.
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            yield
    except ValueError as problem:
        if not isinstance(problem.__context__, SampleValidationError):
            raise
        raise SpaceError(
            f"a label has other choices here than before: {problem.__context__}. {ONE_LABEL}"
        ) from problem
    finally:
        logger.removeFilter(is_no_error)


ONE_LABEL = "Use one choice object in both places, or two labels."


def _check_labels(name: str, space: ModelSpace) -> None:
    """Refuse a label that stands for different choices. Raises RecipeError."""
    found: dict[str, LabeledMutable] = {}
    for mutable in space.leaf_mutables(lambda leaf: isinstance(leaf, LabeledMutable)):
        other = found.setdefault(mutable.label, mutable)
        if not other.equals(mutable):
            here, there = (getattr(x, "values", type(x).__name__) for x in (mutable, other))
            raise RecipeError(
                f"space {name}: the label '{mutable.label}' has the choices {there} in one place "
                f"and {here} in another. {ONE_LABEL}"
            )


def default_input_shape(space: ModelSpace) -> tuple[int, int, int]:
    """Return what a space takes without data that say so: (channels, height, width).

    Its own ``in_channels`` and ``input_size``, or those of ImageNet.
    """
    return (getattr(space, "in_channels", 3), *height_width(getattr(space, "input_size", 224)))


def find_default(name: str, argument: str, folder: FilePath | None = None) -> Any:
    """Return what an argument of a space is if a recipe does not give it; None without a default.

    Raises RecipeError if there is no such space.
    """
    factory = SPACES.find(name, folder)
    if isinstance(factory, Preset) and argument in factory.defaults:
        return factory.defaults[argument]
    parameter = space_parameters(factory).get(argument)
    if parameter is None or parameter.default is parameter.empty:
        return None
    return parameter.default
