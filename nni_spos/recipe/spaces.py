"""The spaces that a recipe can name, without PyTorch: it is imported when one is found."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any, cast

from nni_spos.components import Key, Registry, described_parameters, load
from nni_spos.recipe.conversion_settings import CONVERTED
from nni_spos.recipe.settings import rule_of

OFFERED = ("affine", "num_classes", "num_outputs", "in_channels", "input_size")
"""Arguments that a space gets from data and task, and from what it is built for, unless it is given
others.
"""


CONVERSION = "nni_spos.conversion.recipe_space:converted"
"""Makes the space of a network."""


class SpaceRegistry(Registry[Callable[..., Any]]):
    """Spaces by name: classes, presets of ours, or functions of a user's that make one.

    The keys of a space are the parameters of its constructor. A network that is converted is found
    as well, but is no name for a user: it has the key ``model`` of a recipe.
    """

    def check_name(self, name: str) -> None:
        """Refuse a name that cannot be one of a space; see `Registry.check_name`."""
        if name != CONVERTED:
            super().check_name(name)

    def find(self, name: str, folder: FilePath | None = None) -> Callable[..., Any]:
        """Import a space; see `Registry.find`."""
        if name == CONVERTED:
            return cast(Callable[..., Any], load(CONVERSION))
        return super().find(name, folder)

    def keys(self, name: str, folder: FilePath | None = None) -> dict[str, Key]:
        """Return the arguments that a recipe may give a space. Raises RecipeError like `find`."""
        factory = self.find(name, folder)
        about = described_parameters(getattr(factory, "space", factory))
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        keys = {}
        for key, parameter in space_parameters(factory).items():
            if parameter.kind in named:
                default = MISSING if parameter.default is parameter.empty else parameter.default
                if key in OFFERED and default is MISSING:
                    default = None
                rule = rule_of(parameter.annotation)
                keys[key] = Key(
                    name=key,
                    default=default,
                    rule=rule.words if rule else "",
                    description=about.get(key, ""),
                    schema=rule.json_schema() if rule else {},
                )
        for key, value in getattr(factory, "defaults", {}).items():
            keys[key] = dataclasses.replace(keys[key], default=value)
        return keys

    def problem(self, found: Any, module: ModuleType) -> str:
        """Return why what was found cannot make a space, or "".

        A function of a module that knows no space is not called: a recipe would run any command
        with ``os:system``.
        """
        base = load(self.base)

        def is_space(value: Any) -> bool:
            return inspect.isclass(value) and issubclass(value, base)

        if not callable(found):
            return f"is a {type(found).__name__}, not a class."
        if inspect.isclass(found) and not is_space(found):
            return (
                f"is a {found.__name__}, not an NNI ModelSpace. Derive the class from "
                "nni.nas.nn.pytorch.ModelSpace."
            )
        is_elsewhere = inspect.isroutine(found) and found.__module__ != module.__name__
        if is_elsewhere or not any(map(is_space, vars(module).values())):
            return (
                f"is a {type(found).__name__}, and '{module.__name__}' does not say "
                "that it makes an NNI ModelSpace. Write it in a module that imports ModelSpace."
            )
        return ""


def space_parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return what a space takes: `small` and presets pass everything on to a class."""
    owner: Any = getattr(factory, "space", None) or getattr(factory, "__self__", factory)
    constructor: Any = factory
    if inspect.isclass(owner):
        # NNI replaces the constructor of a ModelSpace by one of (*args, **kwargs) and keeps the
        # original; for a class without its own constructor that is its base's replacement.
        bases: list[Any] = [base for base in owner.__mro__ if "_init_wrapped" in vars(base)]
        originals = [base._init_wrapped for base in bases]
        replacements = [base.__init__ for base in bases]
        constructor = next((x for x in originals if x not in replacements), owner.__init__)
    try:
        signature = inspect.signature(constructor, eval_str=True)
    except Exception:  # an annotation can be any code; then it says nothing
        signature = inspect.signature(constructor)
    parameters = dict(signature.parameters)
    parameters.pop("self", None)
    return parameters


SPACES = SpaceRegistry(
    "space",
    {
        "shufflenet": "nni_spos.spaces.shufflenet:ShuffleNetV2Space",
        "shufflenet_small": "nni_spos.spaces.shufflenet:SHUFFLENET_SMALL",
        "shufflenet_channels": "nni_spos.spaces.shufflenet:CHANNELS",
        "shufflenet_channels_small": "nni_spos.spaces.shufflenet:CHANNELS_SMALL",
        "shufflenet_joint": "nni_spos.spaces.shufflenet:JOINT",
        "shufflenet_joint_small": "nni_spos.spaces.shufflenet:JOINT_SMALL",
        "resnet18": "nni_spos.spaces.resnet:ResNetSpace",
        "resnet34": "nni_spos.spaces.resnet:RESNET34",
        "resnet_small": "nni_spos.spaces.resnet:RESNET_SMALL",
        "proxylessnas_cpu": "nni_spos.spaces.proxylessnas:CPU",
        "proxylessnas_gpu": "nni_spos.spaces.proxylessnas:GPU",
        "proxylessnas_mobile": "nni_spos.spaces.proxylessnas:MOBILE",
        "proxylessnas_small": "nni_spos.spaces.proxylessnas:PROXYLESSNAS_SMALL",
        "fbnet": "nni_spos.spaces.fbnet:FBNetSpace",
        "fbnet_small": "nni_spos.spaces.fbnet:FBNET_SMALL",
        "nasbench_macro": "nni_spos.spaces.nasbench_macro:NASBenchMacroSpace",
        "channelbench_resnet": "nni_spos.spaces.channelbench:ChannelBenchResNetSpace",
        "channelbench_mobilenet": "nni_spos.spaces.channelbench:ChannelBenchMobileNetSpace",
    },
    group="nni_spos.spaces",
    base="nni.nas.nn.pytorch:ModelSpace",
)
"""Spaces by the name that recipes and the command line use."""
