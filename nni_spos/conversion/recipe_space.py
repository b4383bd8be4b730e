"""The space of a network that a recipe names."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.conversion.convert import prepare
from nni_spos.conversion.plan import ConversionPlan
from nni_spos.conversion.sources import build_model
from nni_spos.conversion.space import ConvertedSpace
from nni_spos.recipe.conversion_settings import ChoiceSettings
from nni_spos.recipe.image_size import ImageSize, height_width
from nni_spos.recipe.recipe import Recipe
from nni_spos.recipe.settings import read_settings

KEPT = 2
"""Networks that are kept ready: a command builds the same one again and again."""


def converted(
    model: Mapping[str, Any],
    choices: Mapping[str, Any],
    num_classes: int | None = None,
    in_channels: int = 3,
    input_size: ImageSize = 224,
    folder: str | None = None,
) -> ModelSpace:
    """Return the space of a network that a recipe names.

    Parameters
    ----------
    model, choices
        Sections of the recipe.
    num_classes, in_channels, input_size
        Of the data.
    folder
        Of the recipe, where a user's module is looked for.

    Raises
    ------
    RecipeError, SpaceError, CheckpointError
        See `nni_spos.conversion.sources.build_model` and `nni_spos.convert`.
    """
    given = {"model": model, "choices": choices, "folder": folder, "stamp": _stamp(model)}
    shape = (in_channels, *height_width(input_size))
    network, plan = _prepared(json.dumps(given, sort_keys=True), num_classes, shape)
    space = ConvertedSpace(network, plan).train()  # as any other is, when it is new
    space.in_channels, space.input_size = in_channels, input_size
    return space


def original_network(recipe: Recipe, num_classes: int | None) -> nn.Module:
    """Return the network that a recipe names as it is, in evaluation mode."""
    return build_model(recipe.space.arguments["model"], num_classes, recipe.file.parent)


def _stamp(model: Mapping[str, Any]) -> object:
    """Return what changes when weights do: of the file, or of the generator that draws them."""
    if weights := model.get("weights"):
        file = FilePath(weights)
        return [file.stat().st_mtime_ns, file.stat().st_size] if file.is_file() else weights
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()


@functools.lru_cache(maxsize=KEPT)
def _prepared(
    given: str, num_classes: int | None, shape: tuple[int, ...]
) -> tuple[nn.Module, ConversionPlan]:
    content = json.loads(given)
    folder = content["folder"] and FilePath(content["folder"])
    # A file of a network is opened where tensors have no values, to see whether it fits.
    with torch.device("cpu"):
        network = build_model(content["model"], num_classes, folder)
        with torch.random.fork_rng(devices=[]):
            images = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
            choices = read_settings(ChoiceSettings, content["choices"], "choices")
            return prepare(network, images, choices, ignore=content["model"].get("ignore") or ())
