"""Whether the paths of a plan compute what they should, and what is left of it where not."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nni_spos.conversion.choices import largest, smallest
from nni_spos.conversion.masking import masked
from nni_spos.conversion.plan import REARRANGED, ConversionPlan
from nni_spos.conversion.refusals import nothing_to_choose, reason_of
from nni_spos.conversion.space import build
from nni_spos.conversion.tracing import call, quiet, tensors
from nni_spos.errors import SpaceError
from nni_spos.path import Choice

TOLERANCE = 1e-5
"""Largest difference of outputs, as a share of the largest output, in single precision."""


def keep_what_runs(
    given: nn.Module,
    network: nn.Module,
    plan: ConversionPlan,
    inputs: tuple[Any, ...],
    expected: list[Tensor],
) -> ConversionPlan:
    """Return a plan of which the largest and the smallest path were seen to run as they should.

    Parameters
    ----------
    given
        The network as it was given.
    network
        A copy, its channels sorted.
    plan
        What of it may be chosen.
    inputs, expected
        Of the given network, and what it returns for them.

    Raises
    ------
    SpaceError
        The largest path is not the network that was given, or no unit is left.
    """
    with quiet():
        if problem := _problem(network, plan, {}, inputs, expected, is_same=True):
            if not all(map(_agree, tensors(call(given, inputs)), expected)):
                raise SpaceError(
                    "convert: two runs of the network on the same inputs differ, so nothing can be "
                    "verified. Take what is random out of its evaluation mode."
                )
            if not _agrees_in_double(given, network, plan, largest(plan), inputs):
                raise SpaceError(f"convert: the largest path is another network: {problem}")
        if _problem(network, plan, smallest(plan), inputs, expected):
            lost = {}
            for label in plan.labels:
                alone = {label: smallest(plan)[label]}
                if problem := _problem(network, plan, alone, inputs, expected):
                    lost[label] = problem
            plan = plan.without(lost)
            if plan.labels and (
                problem := _problem(network, plan, smallest(plan), inputs, expected)
            ):
                raise SpaceError(
                    f"convert: the smallest path does not run: {problem} Let `ignore` name a part."
                )
        plan = plan.without(_misplaced(network, plan, inputs))
    if not plan.labels:
        raise SpaceError(nothing_to_choose(plan))
    return plan


def _misplaced(network: nn.Module, plan: ConversionPlan, inputs: tuple[Any, ...]) -> dict[str, str]:
    """Return the widths of concatenated parts whose channels are not where they should be.

    By label, with the reason. Code can look for a part where it was in the given network.
    """
    parted = {label: width for label, width in plan.widths.items() if width.is_parted}
    most = max((len(width.choices) for width in parted.values()), default=1)
    together = [
        {label: width.choices[min(i, len(width.choices) - 1)] for label, width in parted.items()}
        for i in range(1, most)
    ]
    if all(_is_masked_network(network, plan, path, inputs) for path in together):
        return {}
    return {
        label: REARRANGED
        for label, width in parted.items()
        if not all(
            _is_masked_network(network, plan, {label: choice}, inputs)
            for choice in width.choices[1:]
        )
    }


def _is_masked_network(
    network: nn.Module, plan: ConversionPlan, path: Mapping[str, Choice], inputs: tuple[Any, ...]
) -> bool:
    """Whether the network of a path computes what the whole one does with the rest masked."""
    whole = masked(network, plan, path)
    try:
        expected = list(tensors(call(whole, inputs)))
    except Exception:  # the code of others
        return False
    path = {**largest(plan), **path}
    if not _problem(network, plan, path, inputs, expected, is_same=True):
        return True
    return _agrees_in_double(whole, network, plan, path, inputs)


def _agrees_in_double(
    given: nn.Module,
    network: nn.Module,
    plan: ConversionPlan,
    path: Mapping[str, Choice],
    inputs: tuple[Any, ...],
) -> bool:
    """Whether a difference was rounding: sums in another order, of values that nearly cancel."""

    def double(value: Any) -> Any:
        return value.double() if value.is_floating_point() else value

    doubled = tree_map_only(Tensor, double, inputs)
    try:
        subnet = build(network, plan, path).double()
        outputs = [call(x, doubled) for x in (subnet, copy.deepcopy(given).double())]
    except Exception:  # the code of others may be for one type alone
        return False
    return all(map(_agree, *map(tensors, outputs)))


def _problem(
    network: nn.Module,
    plan: ConversionPlan,
    path: Mapping[str, Choice],
    inputs: tuple[Any, ...],
    expected: list[Tensor],
    *,
    is_same: bool = False,
) -> str:
    """Return why the network of a path is not what it should be, or ""."""
    try:
        subnet = build(network, plan, {**largest(plan), **path})
        outputs = list(tensors(call(subnet, inputs)))
    except Exception as problem:
        return f"it does not run: {reason_of(problem)}"
    shapes = [tuple(x.shape) for x in outputs]
    if shapes != [tuple(x.shape) for x in expected]:
        return f"it returns tensors of the shapes {shapes}."
    if is_same and not all(map(_agree, outputs, expected)):
        return "its outputs differ from those of the network."
    return ""


def _agree(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs are the same but for rounding."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = float(other.abs().max()) if other.numel() else 0.0
    return bool(torch.allclose(one, other, rtol=0, atol=TOLERANCE * max(scale, 1e-30)))
