"""Networks that cannot be converted, each refused in a line."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path as FilePath
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nni_spos.conversion.plan import ConversionPlan
from nni_spos.conversion.tracing import tensors
from nni_spos.errors import SpaceError
from nni_spos.mutables.adoption import HOOKS

TORCH = FilePath(torch.__file__).parent
HERE = FilePath(__file__).parent


def refuse(network: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Refuse networks that cannot be converted. Raises SpaceError."""
    if not isinstance(network, nn.Module):
        raise SpaceError(f"convert: needs a torch.nn.Module, got a {type(network).__name__}.")
    if isinstance(network, ModelSpace):
        raise SpaceError(
            f"convert: the network is a {type(network).__name__}, a model space already, whose "
            "choices are searched as they are."
        )
    if isinstance(network, torch.jit.ScriptModule):
        raise SpaceError("convert: the network is a ScriptModule. Give the module it was made of.")
    for name, module in network.named_modules():
        where = f"module '{name}' ({type(module).__name__})" if name else "the network"
        if isinstance(module, nn.modules.lazy.LazyModuleMixin):
            raise SpaceError(
                f"convert: {where} is lazy: its size is not known. Run the network once before."
            )
        if parametrize.is_parametrized(module):
            raise SpaceError(
                f"convert: {where} has parametrizations. Make their results parameters: "
                "torch.nn.utils.parametrize.remove_parametrizations."
            )
        hooks = [hook for hook in HOOKS if isinstance(vars(module).get(hook), dict)]
        if any(vars(module)[hook] for hook in hooks if "state_dict" not in hook):
            raise SpaceError(
                f"convert: {where} has hooks, which may change what it computes. Remove them, or "
                "write what they do into its forward method."
            )
    training = [name or "itself" for name, module in network.named_modules() if module.training]
    if training:
        raise SpaceError(
            f"convert: the network is in training mode (module {training[0]}). Call .eval() first."
        )
    devices = {x.device for x in (*network.parameters(), *network.buffers())}
    given = {x.device for x in tensors(inputs)}
    if len(devices | given) > 1:
        raise SpaceError(
            f"convert: the network is on {_names(devices)} and the example inputs are on "
            f"{_names(given)}. Move all to one device."
        )
    owned = _float_types(network.parameters())
    given_types = _float_types(tensors(inputs))
    if owned and given_types and not owned & given_types:
        raise SpaceError(
            f"convert: the network is of {_names(owned)} and the example inputs are of "
            f"{_names(given_types)}. Bring both to one, such as .float()."
        )


def _float_types(values: Iterable[Tensor]) -> set[torch.dtype]:
    """Return the types of the numbers that are no whole ones."""
    return {x.dtype for x in values if x.is_floating_point()}


def nothing_to_choose(plan: ConversionPlan) -> str:
    """Return why no part of a network can be chosen."""
    reasons = [f"'{part}': {reason}" for part, reason in plan.left[:3]]
    text = "; ".join(reasons) or (
        "it has no layer that ran and that choices are made for (channels, kernel, bits, skip)"
    )
    advice = ""
    if plan.left:
        advice = f" To leave a part out: ignore: [{plan.left[0].part.rsplit('.', 1)[0]!r}]."
    return f"convert: nothing in the network can be chosen: {text}.{advice}"


def reason_of(problem: Exception) -> str:
    """Return in one line what a network raised, and the last line of code that is not PyTorch's."""
    text = " ".join(str(problem).split())
    frames = traceback.extract_tb(problem.__traceback__)
    own = [f for f in frames if not FilePath(f.filename).is_relative_to(TORCH)]
    own = [f for f in own if not FilePath(f.filename).is_relative_to(HERE)]
    where = f" ({FilePath(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(problem).__name__}: {text}{where}"


def _names(values: set[torch.device] | set[torch.dtype]) -> str:
    return " and ".join(sorted(map(str, values))) or "no device"
