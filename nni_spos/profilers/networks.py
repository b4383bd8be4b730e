"""Multiply-adds of networks without choices, and of what calls of their layers cost."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from nni_spos.cost_table import CostTable
from nni_spos.errors import CostError
from nni_spos.mutables.adoption import rebuild
from nni_spos.path import Path
from nni_spos.profilers.copying import copy_observable
from nni_spos.profilers.macs import apply_formula, is_registered
from nni_spos.profilers.recorder import LayerCall
from nni_spos.profilers.trace import trace_network

REGISTER = "nni_spos.profilers.register_macs"

_FIXED = ("torch.nn.modules.", "nni_spos.mutables.", "nni_spos.profilers.")
"""Where classes are whose products are all known to be their own."""


def count_macs(network: nn.Module, input_shape: Sequence[int]) -> int:
    """Return the multiply-adds of a network, or of any other module, for one input.

    Parameters
    ----------
    network
        A module without choices that takes one tensor; it is copied, not changed, and runs in
        evaluation mode.
    input_shape
        Of one image, (channels, height, width), or of another input without the batch dimension.

    Raises
    ------
    CostError
        An operator cannot be counted, what is computed depends on values, or it does not run.

    Examples
    --------
    >>> count_macs(nn.Conv2d(4, 8, 3), (4, 8, 8))  # 6 x 6 pixels, 8 filters of 3 x 3 x 4
    10368
    """
    calls = trace_network(lambda device: copy_observable(network, device), input_shape)
    return sum(macs_of(call) for call in calls)


def macs_of(call: LayerCall) -> int:
    """Return what a call costs: by a user's formula, or what was computed in it.

    Raises
    ------
    CostError
        It computes what cannot be counted, or a formula gives no number, or 0 for what costs
        something: a network may be deployed with fewer multiply-adds than it is trained with, but
        not with none.
    """
    seen = sum(product.macs or 0 for product in call.products)
    if is_registered(call.module):
        macs = apply_formula(call.module, call.input_shape, call.output_shape, call.name)
        if seen and not macs:
            raise CostError(
                f"{call.title}: its formula gives 0 multiply-adds, and it does {seen} "
                f"({listed(x.place for x in call.products)}). Give it another one with {REGISTER}."
            )
        return macs
    unknown = [product for product in call.products if product.macs is None]
    if unknown:
        advice = f"Give the layer a formula with {REGISTER}."
        if not call.name:
            advice = f"Put it into an nn.Module, and give that a formula with {REGISTER}."
        raise CostError(
            f"{call.title} calls {listed(x.place for x in unknown)}, whose multiply-adds cannot be "
            f"counted. {advice}"
        )
    return seen


def own_places(calls: Iterable[LayerCall]) -> list[str]:
    """Return where products are computed by code that may hold or share any layer."""
    return [
        product.place
        for call in calls
        if call.products and not is_registered(call.module) and not _is_fixed(call.module)
        for product in call.products
    ]


def check_networks(
    space: ModelSpace, input_shape: Sequence[int], flops: CostTable, places: str
) -> None:
    """Compare a table with the networks of some paths, which together have every choice.

    Code of a user's own may use layers with choices behind our back: by a function or a bound
    method that a module keeps, or by their weights.

    Parameters
    ----------
    space
        The space, whose constructor builds the networks.
    input_shape
        Of one image: (channels, height, width).
    flops
        Its multiply-adds.
    places
        Where it may do so, for the message.

    Raises
    ------
    CostError
        A network costs something else, or cannot be built.
    """
    for path in flops.space.covering() if len(flops.space) else ():
        calls = trace_network(functools.partial(_build, space, path), input_shape)
        if (macs := sum(map(macs_of, calls))) != flops.price(path):
            raise CostError(
                f"the network of a path does {macs:,} multiply-adds, and {flops.price(path):,} by "
                f"what the space computes. Something ({places}) depends on choices in a way that "
                "is not known, such as by layers that a kept function or bound method holds, or "
                "by the weights of a layer with choices. Call the layers themselves, or put it "
                f"into an nn.Module and give its formula with {REGISTER}."
            )


def _build(space: ModelSpace, path: Path, device: str) -> nn.Module:
    with torch.device(device):
        network = rebuild(space, model_context(path))
    if network is None:
        if device == "meta":
            raise RuntimeError("the constructor asks for values")
        raise CostError(
            "what the space computes outside of its layers can be counted only if its constructor "
            "can be called again with the arguments that it got. Let it be, with arguments that "
            "copy.deepcopy can copy."
        )
    return copy_observable(network, device)


def _is_fixed(module: nn.Module) -> bool:
    return type_before_parametrizations(module).__module__.startswith(_FIXED)


def listed(places: Iterable[str]) -> str:
    """Return the first few places as one text."""
    found = list(dict.fromkeys(places))
    return ", ".join(found[:3]) + (" and others" if len(found) > 3 else "")
