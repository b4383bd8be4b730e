"""Build the space that a recipe names: one of ours, or ``module:Class`` of the user's."""

from __future__ import annotations

import contextlib
import enum
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context

from nni_spos.errors import QuantizationError, RecipeError, SpaceError, nearest
from nni_spos.mutables import SCALES
from nni_spos.path import Choice
from nni_spos.spaces.resnet import ResNetSpace
from nni_spos.spaces.shufflenet import SMALL, ShuffleNetV2Space


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
    "shufflenet_small": ShuffleNetV2Space.small,
    "shufflenet_channels": Preset(ShuffleNetV2Space, {**_CHANNELS, "blocks": "k3"}),
    "shufflenet_channels_small": Preset(ShuffleNetV2Space, {**SMALL, **_CHANNELS, "blocks": "k3"}),
    "shufflenet_joint": Preset(ShuffleNetV2Space, _CHANNELS),
    "shufflenet_joint_small": Preset(ShuffleNetV2Space, {**SMALL, **_CHANNELS}),
    "resnet18": ResNetSpace,
    "resnet34": Preset(ResNetSpace, {"stage_repeats": (3, 4, 6, 3)}),
    "resnet_small": ResNetSpace.small,
}
"""Spaces by the name that recipes and the command line use."""


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
) -> ModelSpace:
    """Build a space by name, or the network of one of its paths.

    Parameters
    ----------
    name
        Key of `SPACES`, or ``module:Class`` of an importable module: only name what you trust,
        importing runs its code.
    arguments
        Keyword arguments for the class.
    form
        Gives ``affine`` to a class that has the parameter, unless `arguments` do.
    num_classes, in_channels, input_size
        Of the data; given to a class that has the parameter, unless `arguments` do.
    path
        Label to choice: build the network of this path, which the space has, with the weights
        that its constructor draws for it.

    Raises
    ------
    RecipeError
        Unknown name, module, class or argument, or values that the class refuses.
    """
    factory = SPACES.get(name) or _import(name)
    if not callable(factory):
        raise RecipeError(f"space {name}: is a {type(factory).__name__}, not a class.")
    parameters = inspect.signature(_constructor(factory)).parameters
    offered = {
        "affine": form is Form.SUBNET,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "input_size": input_size,
    }
    given = {k: v for k, v in offered.items() if k in parameters and v is not None}
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
    try:
        with model_context(dict(path)) if path is not None else contextlib.nullcontext():
            space = factory(**{**given, **arguments})
    except (TypeError, ValueError, SpaceError, QuantizationError) as problem:
        raise RecipeError(f"space {name}: {problem}") from None
    if not isinstance(space, ModelSpace):
        raise RecipeError(f"space {name}: is a {type(space).__name__}, not an NNI ModelSpace.")
    return space


def default_input_shape(space: ModelSpace) -> tuple[int, int, int]:
    """Return what a space takes without data that say so: (channels, height, width).

    Its own ``in_channels`` and ``input_size``, or those of ImageNet.
    """
    size = getattr(space, "input_size", 224)
    return (getattr(space, "in_channels", 3), size, size)


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


def _import(name: str) -> Callable[..., ModelSpace]:
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise RecipeError(
            f"unknown space '{name}'{nearest(name, SPACES) or '.'} "
            f"Spaces: {', '.join(SPACES)}, or module:Class."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as problem:  # the module's own code runs: anything can be raised
        raise RecipeError(
            f"space {name}: cannot import '{module_name}' ({type(problem).__name__}: {problem})."
        ) from problem
    if not hasattr(module, class_name):
        raise RecipeError(f"space {name}: module '{module_name}' has no '{class_name}'.")
    return getattr(module, class_name)
