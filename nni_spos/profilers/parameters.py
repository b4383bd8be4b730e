"""Parameters of a path: those of every module that the frozen network would have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

from nni_spos.errors import CostError
from nni_spos.profilers.trace import Condition


def parameter_counts(space: ModelSpace) -> Iterator[tuple[Condition, int]]:
    """Yield (when it is part of a path, number of elements) for every parameter of a space.

    A parameter that several modules share counts once in every path.

    Raises
    ------
    CostError
        Modules share a parameter, but under different labels.
    """
    seen: dict[int, list[Condition]] = defaultdict(list)

    def walk(module: nn.Module, condition: Condition) -> Iterator[tuple[Condition, int]]:
        for name, parameter in module.named_parameters(recurse=False):
            users = seen[id(parameter)]
            if any(set(user) <= set(condition) for user in users):
                continue
            if not all(_exclude(user, condition) for user in users):
                raise CostError(
                    f"parameter '{name}' of a {type(module).__name__} is shared by modules under "
                    "different choice units, which cannot be counted by choice."
                )
            users.append(condition)
            yield condition, parameter.numel()
        if isinstance(module, LayerChoice):
            outside = dict(condition)
            for choice in module.names:
                if outside.get(module.label, choice) == choice:
                    inside = tuple({**outside, module.label: choice}.items())
                    yield from walk(module[choice], inside)
        else:
            for child in module.children():
                yield from walk(child, condition)

    yield from walk(space, ())


def _exclude(one: Condition, other: Condition) -> bool:
    """Whether no path meets both conditions."""
    choices = dict(one)
    return any(choices.get(label, choice) != choice for label, choice in other)
