"""What a recipe says about a network that is converted: which one, and what of it may be chosen."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import Any

from nni_spos.errors import RecipeError
from nni_spos.recipe.settings import (
    BOOL,
    POSITIVE_INT,
    TEXT,
    Rule,
    check_values,
    list_of,
    one_of,
    optional,
    read_settings,
    setting,
)
from nni_spos.values import is_finite, shown

CONVERTED = "converted"
"""Name of the space that a network becomes."""

FAMILIES = ("torchvision", "timm")
"""Libraries whose networks are named with them before a colon."""

FILE_SUFFIXES = (".pt", ".pth", ".bin", ".tar", ".safetensors")
"""Endings of what is a file of weights, and no name of published ones."""

BY_BATCHES = "taylor"
"""The importance that needs batches of data."""

IMPORTANCES = ("l2", "batchnorm", BY_BATCHES)
"""By what channels are sorted: the length of their weights, BatchNorm's scale, or the loss."""

FULL_BITS = (32, 32)

BITS_WORDS = (
    "a list of bit widths from 1 to 8 or 32, or of pairs [weight bits, activation bits], with 32 "
    "among them, which is the given network, such as [8, 32]"
)
CHANNELS_WORDS = (
    "a list of shares above 0 and up to 1, with 1 among them, which is the given network, such as "
    "[0.5, 0.75, 1]"
)


def _are_shares(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    return not value or (all(is_finite(x) and 0 < x <= 1 for x in value) and 1 in value)


def _are_bits(value: Any) -> bool:
    if not isinstance(value, list | tuple):
        return False
    pairs = [_pair(x) for x in value]
    return not pairs or (None not in pairs and FULL_BITS in pairs)


def _pair(entry: Any) -> tuple[int, int] | None:
    pair = tuple(entry) if isinstance(entry, list | tuple) else (entry, entry)
    allowed = all(type(bits) is int and (1 <= bits <= 8 or bits == 32) for bits in pair)
    return (pair[0], pair[1]) if len(pair) == 2 and allowed else None


def _read_shares(value: Any) -> tuple[float, ...]:
    return tuple(sorted({float(x) for x in value}))


def _read_bits(value: Any) -> tuple[tuple[int, int], ...]:
    return tuple(sorted({pair for x in value if (pair := _pair(x))}, reverse=True))


SHARES = Rule(_are_shares, CHANNELS_WORDS, {"type": "array", "items": {"type": "number"}})
BITS = Rule(_are_bits, BITS_WORDS, {"type": "array"})


@dataclass(frozen=True)
class ChoiceSettings:
    """What of a network may be chosen.

    Parameters
    ----------
    channels
        Shares of the channels of a layer; null, or an empty list, lets all stay.
    bits
        Bit widths of weights and inputs, or pairs of them; by default none is a choice.
    skip
        Whether residual blocks may be left out, where input and output have the same shape.
    kernel
        Whether depthwise convolutions with a kernel above 3 may use its centre.
    residual
        Whether channels that are added or concatenated may be chosen as well: the same number for
        all terms of a sum, the same share of all parts of a concatenation.
    round_to
        Numbers of channels are multiples of this.
    importance
        By what the channels of a layer are sorted, of which a narrow path keeps the first: l2, the
        length of their weights, batchnorm, the scale of the BatchNorm behind them, or, in Python
        alone, taylor, what the loss of some batches would change without them.
    quantizer
        Of the layers whose bits are a choice: symmetric, integers times a learned step, or dorefa,
        the paper's, which 1-bit weights need.
    """

    channels: tuple[float, ...] = setting(optional(SHARES), (0.25, 0.5, 0.75, 1.0), _read_shares)
    bits: tuple[tuple[int, int], ...] = setting(optional(BITS), (), _read_bits)
    skip: bool = setting(BOOL, True)
    kernel: bool = setting(BOOL, True)
    residual: bool = setting(BOOL, False)
    round_to: int = setting(POSITIVE_INT, 8)
    importance: str = setting(one_of(*IMPORTANCES), "l2")
    quantizer: str = setting(one_of("symmetric", "dorefa"), "symmetric")

    def __post_init__(self) -> None:
        check_values(self)
        for name in ("channels", "bits"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, ())


@dataclass(frozen=True)
class ModelSettings:
    """The network that is converted.

    Parameters
    ----------
    name
        torchvision:NAME, timm:NAME, or module:function of your own beside the recipe, whose other
        arguments stand beside this.
    weights
        File of a state dict, or the name of published weights, such as DEFAULT, which the library
        downloads; without them the network begins with random ones.
    num_classes
        Outputs of the network; by default the classes of the data. A last layer with others, in
        the file of the weights, begins anew.
    ignore
        Names of modules that stay as they are; * stands for anything.
    """

    name: str = setting(TEXT)
    weights: str | None = setting(optional(TEXT), None)
    num_classes: int | None = setting(optional(POSITIVE_INT), None)
    ignore: tuple[str, ...] = setting(list_of(TEXT, "a list of names of modules"), (), tuple)


MODEL_KEYS = tuple(x.name for x in dataclasses.fields(ModelSettings) if x.metadata)


def read_conversion(model: Any, choices: Any, where: str, folder: FilePath) -> dict[str, Any]:
    """Return the arguments of the space that a network becomes.

    Parameters
    ----------
    model, choices
        What the user wrote.
    where
        Name of the recipe, for messages.
    folder
        Of the recipe: files of weights are relative to it.

    Raises
    ------
    RecipeError
        A key or a value that is not allowed.
    """
    if not isinstance(model, Mapping):
        raise RecipeError(
            f"{where}: model: must be a mapping such as {{name: 'torchvision:resnet18', weights: "
            f"mine.pt}}, got {shown(model)}."
        )
    own = {key: value for key, value in model.items() if key in MODEL_KEYS}
    settings = read_settings(ModelSettings, own, f"{where}: model")
    check_model_name(settings.name, f"{where}: model.name")
    found: dict[str, Any] = {**model, "ignore": list(settings.ignore)}
    if settings.weights and is_weights_file(settings.weights):
        found["weights"] = str(folder / os.path.expanduser(settings.weights))
    chosen = read_settings(ChoiceSettings, choices, f"{where}: choices")
    if chosen.importance == BY_BATCHES:
        raise RecipeError(
            f"{where}: choices.importance: taylor needs batches, which nni_spos.convert gets as "
            "'calibration', and no recipe. Use l2 or batchnorm here."
        )
    return {"model": found, "choices": as_plain(chosen)}


def check_model_name(name: str, where: str) -> None:
    """Refuse a name that stands for no network. Raises RecipeError."""
    family, colon, rest = name.partition(":")
    if not (family and colon and rest):
        raise RecipeError(
            f"{where}: got {shown(name)}; must be torchvision:NAME, timm:NAME, or module:function "
            "of your own."
        )


def is_weights_file(weights: str) -> bool:
    """Whether weights are in a file of the user's, and not published under a name."""
    return weights.endswith(FILE_SUFFIXES) or os.sep in weights


def as_plain(choices: ChoiceSettings) -> dict[str, Any]:
    """Return choices as a recipe has them."""
    found = dataclasses.asdict(choices)
    found["channels"] = list(choices.channels or ())
    found["bits"] = [list(pair) for pair in choices.bits or ()]
    return found


def code_of(arguments: Mapping[str, Any]) -> str | None:
    """Return the name of a user's own function that makes the network; None for a library's."""
    name = str(arguments["model"]["name"])
    return None if name.partition(":")[0] in FAMILIES else name


SUPERNET_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"batch_size": 128, "learning_rate": 0.02, "initial_weights": "original"}
)
"""Settings of a supernet's training that begins with trained weights."""

RETRAIN_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"batch_size": 128, "learning_rate": 0.02, "initial_weights": "supernet"}
)
"""Settings of the fine-tuning of a path."""

SEARCH_DEFAULTS: Mapping[str, Any] = MappingProxyType({"sensitivity": True})
"""Settings of a search that begins near a network as it was given."""
