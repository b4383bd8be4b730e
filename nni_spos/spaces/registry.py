"""Build the space that a recipe names: one of ours, or ``module:Class`` of the user's."""

from __future__ import annotations

import contextlib
import enum
import inspect
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any

from nni.mutable import LabeledMutable
from nni.mutable.exception import SampleValidationError
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context

from nni_spos.errors import QuantizationError, RecipeError, SpaceError, SposError, nearest
from nni_spos.mutables import SCALES
from nni_spos.path import Choice
from nni_spos.spaces import fbnet, proxylessnas, resnet
from nni_spos.spaces.fbnet import FBNetSpace
from nni_spos.spaces.nasbench_macro import NASBenchMacroSpace
from nni_spos.spaces.proxylessnas import WIDTHS, ProxylessNASSpace
from nni_spos.spaces.resnet import ResNetSpace
from nni_spos.spaces.shufflenet import SMALL, ShuffleNetV2Space
from nni_spos.user_modules import import_user_module


@dataclass(frozen=True)
class Preset:
    """A space with other defaults.

    Parameters
    ----------
    space
        Its class.
    defaults
        Keyword arguments that are used unless others are given.
    """

    space: type[ModelSpace]
    defaults: Mapping[str, Any]

    def __call__(self, **arguments: Any) -> ModelSpace:
        return self.space(**{**self.defaults, **arguments})


_CHANNELS: dict[str, Any] = {"channel_scales": SCALES}

SPACES: dict[str, Callable[..., ModelSpace]] = {
    "shufflenet": ShuffleNetV2Space,
    "shufflenet_small": Preset(ShuffleNetV2Space, SMALL),
    "shufflenet_channels": Preset(ShuffleNetV2Space, {**_CHANNELS, "blocks": "k3"}),
    "shufflenet_channels_small": Preset(ShuffleNetV2Space, {**SMALL, **_CHANNELS, "blocks": "k3"}),
    "shufflenet_joint": Preset(ShuffleNetV2Space, _CHANNELS),
    "shufflenet_joint_small": Preset(ShuffleNetV2Space, {**SMALL, **_CHANNELS}),
    "resnet18": ResNetSpace,
    "resnet34": Preset(ResNetSpace, {"stage_repeats": (3, 4, 6, 3)}),
    "resnet_small": Preset(ResNetSpace, resnet.SMALL),
    "proxylessnas_cpu": Preset(ProxylessNASSpace, WIDTHS["cpu"]),
    "proxylessnas_gpu": Preset(ProxylessNASSpace, WIDTHS["gpu"]),
    "proxylessnas_mobile": Preset(ProxylessNASSpace, WIDTHS["mobile"]),
    "proxylessnas_small": Preset(ProxylessNASSpace, proxylessnas.SMALL),
    "fbnet": FBNetSpace,
    "fbnet_small": Preset(FBNetSpace, fbnet.SMALL),
    "nasbench_macro": NASBenchMacroSpace,
}
"""Spaces by the name that recipes and the command line use."""


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
    input_size: int | None = None,
    path: Mapping[str, Choice] | None = None,
    folder: FilePath | None = None,
) -> ModelSpace:
    """Build a space by name, or the network of one of its paths.

    Parameters
    ----------
    name
        Key of `SPACES`, or ``module:Class``: only name what you trust, importing runs its code.
    arguments
        Keyword arguments for the class.
    form
        Gives ``affine`` to a class that has the parameter, unless `arguments` do.
    num_classes, in_channels, input_size
        Of the data; given to a class that has the parameter, unless `arguments` do.
    path
        Label to choice: build the network of this path, which the space has, with the weights
        that its constructor draws for it.
    folder
        Where a user's module is looked for before Python's path is: the recipe's folder.

    Raises
    ------
    RecipeError
        Unknown name, module, class or argument, or values that the class refuses; for a user's
        class, whatever its constructor raises.
    """
    factory = _find(name, folder)
    parameters = inspect.signature(_constructor(factory)).parameters
    offered = {
        "affine": form is Form.SUBNET,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "input_size": input_size,
    }
    given = {k: v for k, v in offered.items() if k in parameters and v is not None}
    _check_arguments(name, arguments, parameters)
    refusals = REFUSALS if name in SPACES else (Exception,)
    try:
        with _construction(path):
            space = factory(**{**given, **arguments})
    except refusals as problem:
        raise RecipeError(f"space {name}: {explain(problem, folder)}") from problem
    if not isinstance(space, ModelSpace):
        raise RecipeError(f"space {name}: is a {type(space).__name__}, not an NNI ModelSpace.")
    _check_labels(name, space)
    return space


def _check_arguments(
    name: str, arguments: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    kinds = {parameter.kind for parameter in parameters.values()}
    known = [
        key
        for key, parameter in parameters.items()
        if key != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    unknown = [key for key in arguments if key not in known]
    if unknown and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise RecipeError(
            f"space {name}: unknown argument '{unknown[0]}'{nearest(unknown[0], known) or '.'} "
            f"Arguments: {', '.join(known)}."
        )


@contextlib.contextmanager
def _construction(path: Mapping[str, Choice] | None) -> Iterator[None]:
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
    size = getattr(space, "input_size", 224)
    return (getattr(space, "in_channels", 3), size, size)


def find_default(name: str, argument: str, folder: FilePath | None = None) -> Any:
    """Return what an argument of a space is if a recipe does not give it; None without a default.

    Raises RecipeError if there is no such space.
    """
    factory = _find(name, folder)
    if isinstance(factory, Preset) and argument in factory.defaults:
        return factory.defaults[argument]
    parameter = inspect.signature(_constructor(factory)).parameters.get(argument)
    if parameter is None or parameter.default is parameter.empty:
        return None
    return parameter.default


def _constructor(factory: Callable[..., ModelSpace]) -> Callable[..., Any]:
    """Where the parameters are declared: `small` and presets pass everything on to a class."""
    owner = factory.space if isinstance(factory, Preset) else getattr(factory, "__self__", factory)
    if not inspect.isclass(owner):
        return factory
    # NNI replaces the constructor of a ModelSpace by one of (*args, **kwargs) and keeps the
    # original; for a class without its own constructor that is its base's replacement.
    bases: list[Any] = [base for base in owner.__mro__ if "_init_wrapped" in vars(base)]
    originals = [base._init_wrapped for base in bases]
    replacements = [base.__init__ for base in bases]
    return next((init for init in originals if init not in replacements), owner.__init__)


def _find(name: str, folder: FilePath | None) -> Callable[..., ModelSpace]:
    """Return the class or function that makes a space. Raises RecipeError.

    A function of a module that knows no space is not called: a recipe would run any command with
    ``os:system``.
    """
    if name in SPACES:
        return SPACES[name]
    module, factory = _import(name, folder)
    if not callable(factory):
        raise RecipeError(f"space {name}: is a {type(factory).__name__}, not a class.")
    if inspect.isclass(factory) and not issubclass(factory, ModelSpace):
        raise RecipeError(
            f"space {name}: is a {factory.__name__}, not an NNI ModelSpace. Derive the class from "
            "nni.nas.nn.pytorch.ModelSpace."
        )
    is_elsewhere = inspect.isroutine(factory) and factory.__module__ != module.__name__
    if is_elsewhere or not any(map(_is_model_space, vars(module).values())):
        raise RecipeError(
            f"space {name}: is a {type(factory).__name__}, and '{module.__name__}' does not say "
            "that it makes an NNI ModelSpace. Write it in a module that imports ModelSpace."
        )
    return factory


def _import(name: str, folder: FilePath | None) -> tuple[ModuleType, Any]:
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise RecipeError(
            f"unknown space '{name}'{nearest(name, SPACES) or '.'} "
            f"Spaces: {', '.join(SPACES)}, or module:Class."
        )
    try:
        module = import_user_module(module_name, folder)
    except Exception as problem:  # the module's own code runs: anything can be raised
        missing = problem.name if isinstance(problem, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            reason = _where_looked(missing, folder)
        else:
            reason = explain(problem, folder)
        raise RecipeError(f"space {name}: cannot import '{module_name}' ({reason}).") from problem
    if not hasattr(module, class_name):
        spaces = [x for x, value in vars(module).items() if _is_own_space(value)]
        raise RecipeError(
            f"space {name}: module '{module_name}' has no '{class_name}'"
            f"{nearest(class_name, spaces) or '.'}"
        )
    return module, getattr(module, class_name)


def _is_own_space(value: Any) -> bool:
    return _is_model_space(value) and value is not ModelSpace


def _is_model_space(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, ModelSpace)


def _where_looked(module_name: str, folder: FilePath | None) -> str:
    if folder is None:
        return f"there is no '{module_name}' among installed packages and in PYTHONPATH"
    others = [file.stem for file in folder.glob("*.py")]
    return (
        f"there is no '{module_name}' in the recipe's folder {folder}, among installed packages "
        f"and in PYTHONPATH{nearest(module_name, others)}"
    )


def explain(problem: Exception, folder: FilePath | None) -> str:
    """Return in one line what went wrong in a user's code and, if that is in the folder, where."""
    text = " ".join(str(problem).split())
    if not isinstance(problem, SposError | TypeError | ValueError):
        text = f"{type(problem).__name__}: {text}"
    # An error of ours may stand for one that the code raised.
    for raised in (problem, problem.__context__):
        frames = traceback.extract_tb(raised.__traceback__) if raised else []
        own = [frame for frame in frames if FilePath(frame.filename).parent == folder]
        if own:
            return f"{text} ({FilePath(own[-1].filename).name}, line {own[-1].lineno})"
    return text
