"""What the constructor of a space that is there already builds anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.path import Choice, PathSpace
from nni_spos.recipe.spaces import space_parameters
from nni_spos.spaces.registry import construction


def build_network(space: ModelSpace, path: Mapping[str, Choice], **arguments: Any) -> nn.Module:
    """Build the network of a path with fresh weights, to train it alone.

    With the weights of a supernet, `nni_spos.extract_subnet` returns it.

    Parameters
    ----------
    space
        A model space, also as a trained supernet; it is not changed.
    path
        Label to choice, for every label of the space.
    **arguments
        Of the space's constructor, other than those that it was built with: ``affine=True``.

    Raises
    ------
    PathError
        The path is not one of the space.
    SpaceError
        The constructor does not offer the choices that it did.
    """
    path = PathSpace.from_model_space(space).validate(path)
    with construction(path):
        return type(space)(*space.trace_args, **{**space.trace_kwargs, **arguments})


def deployed_form(space: ModelSpace) -> ModelSpace:
    """Return a space in the form whose networks are deployed: those that `build_network` builds.

    It is another one where the constructor has the argument ``affine=None`` and was not given it:
    BatchNorm then has weights in the network of a path, and none in a supernet.
    """
    parameter = space_parameters(type(space)).get("affine")
    if parameter is None or parameter.default is not None or "affine" in space.trace_kwargs:
        return space
    # Only its layers are looked at: the weights that are drawn must not change what is drawn next.
    with construction(None), torch.random.fork_rng(devices=[]):
        return type(space)(*space.trace_args, **{**space.trace_kwargs, "affine": True})
