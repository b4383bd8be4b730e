"""Parameters of a path, those of every module of its network, and their bits."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import LayerChoice, ModelSpace, Repeat
from torch import Tensor, nn

from nni_spos.errors import CostError
from nni_spos.metrics import Condition, ParameterCount
from nni_spos.mutables import SlicedOperation
from nni_spos.mutables.boxes import Slices
from nni_spos.mutables.quantization import Quantized
from nni_spos.mutables.repeat import depths_of


@dataclass(frozen=True)
class _Use:
    """A parameter as one module has it.

    Parameters
    ----------
    tensor
        By its identity: modules that are tied have the same.
    part
        Which slices of it; () for all.
    count
        When, how many elements and how many bits.
    layer, name
        The module's dotted name, and that of the parameter in it.
    kind
        Of the module.
    """

    tensor: Tensor
    part: Slices
    count: ParameterCount
    layer: str
    name: str
    kind: str

    @property
    def choices(self) -> frozenset[tuple[str, Any]]:
        return frozenset(self.count.condition)


def count_parameters(space: ModelSpace) -> Iterator[ParameterCount]:
    """Yield every parameter of every path of a space.

    A parameter that several modules share counts once in every path.

    Parameters
    ----------
    space
        Its layers with choices as arguments are in their weight-sharing form.

    Raises
    ------
    CostError
        Modules share a parameter, but under different labels, or use different parts of it or
        different bits.
    """
    uses = list(_walk(space, (), ""))
    users: dict[int, list[_Use]] = defaultdict(list)
    for use in uses:
        users[id(use.tensor)].append(use)
    counted = {id(use) for shared in users.values() for use in _merge(shared)}
    yield from (use.count for use in uses if id(use) in counted)


def _walk(module: nn.Module, condition: Condition, layer: str) -> Iterator[_Use]:
    """Yield the uses of all parameters, those of shared modules for every place they are in."""
    if isinstance(module, SlicedOperation):
        yield from _parts(module, condition, layer)
        return
    for name, parameter in module.named_parameters(recurse=False):
        count = ParameterCount(condition, parameter.numel(), _bits(module, name, parameter))
        yield _Use(parameter, (), count, layer, name, type(module).__name__)
    if isinstance(module, LayerChoice):
        outside = dict(condition)
        for choice in module.names:
            if outside.get(module.label, choice) == choice:
                inside = tuple({**outside, module.label: choice}.items())
                yield from _walk(module[choice], inside, f"{layer}.{choice}")
    elif isinstance(module, Repeat):
        outside = dict(condition)
        for sample, depth in depths_of(module, outside):
            inside = tuple({**outside, **sample}.items())
            for position in range(depth):
                yield from _walk(module.blocks[position], inside, f"{layer}.blocks.{position}")
    else:
        for name, child in module.named_children():
            yield from _walk(child, condition, f"{layer}.{name}" if layer else name)


def _parts(operation: SlicedOperation, condition: Condition, layer: str) -> Iterator[_Use]:
    """Yield what paths use of a layer's parameters, for every combination of its choices."""
    for sample in operation.samples():
        if _exclude(condition, tuple(sample.items())):
            continue
        merged = tuple({**dict(condition), **sample}.items())
        part = operation.part_at(sample)
        for name, slices in part.slices.items():
            tensor = operation.get_tensor(name)
            if isinstance(tensor, nn.Parameter):
                number = tensor[slices].numel()
                bits = _bits(operation, name, tensor, part.arguments.get("weight_bits"))
                count = ParameterCount(merged, number, bits)
                yield _Use(tensor, slices, count, layer, name, type(operation).__name__)


def _merge(uses: Sequence[_Use]) -> list[_Use]:
    """Return uses of one parameter of which every path that has it has one.

    Raises CostError if paths have several, and they are not the same.
    """
    if len({use.layer for use in uses}) == 1:
        return list(uses)  # one module, once or for each of its own choices
    by_choices: dict[frozenset[tuple[str, Any]], _Use] = {}
    for use in uses:
        _check_alike(by_choices.setdefault(use.choices, use), use)
    if len(by_choices) == 1:
        return list(by_choices.values())
    label_sets = {frozenset(label for label, _ in choices) for choices in by_choices}
    if len(label_sets) == 1:  # no two are in one path
        return list(by_choices.values())
    kept = []
    for choices, use in by_choices.items():
        wider = [_restrict(choices, labels) for labels in label_sets]
        implied_by = [by_choices[x] for x in wider if x < choices and x in by_choices]
        for other in implied_by:
            _check_alike(other, use)
        if not implied_by:
            kept.append(use)
    _check_apart(kept)
    return kept


def _check_alike(one: _Use, other: _Use) -> None:
    """Refuse a parameter that two modules of a path use in different ways. Raises CostError."""
    same = (one.part, one.count.number) == (other.part, other.count.number)
    if not same or one.count.bits != other.count.bits:
        what = "bit widths" if same else "sizes"
        raise CostError(
            f"{_title(one, other)} with different {what}, which cannot be counted. Give each its "
            "own, or the same choices."
        )


def _check_apart(uses: Sequence[_Use]) -> None:
    """Refuse two uses that only some paths have both of. Raises CostError."""
    groups: dict[frozenset[str], list[_Use]] = defaultdict(list)
    for use in uses:
        groups[frozenset(label for label, _ in use.count.condition)].append(use)
    for one, other in itertools.combinations(groups, 2):
        common = one & other
        found = {_restrict(use.choices, common): use for use in groups[one]}
        for use in groups[other]:
            if (first := found.get(_restrict(use.choices, common))) is not None:
                raise CostError(
                    f"{_title(first, use)} under different choice units, which cannot be counted "
                    "by choice."
                )


def _restrict(
    choices: frozenset[tuple[str, Any]], labels: frozenset[str]
) -> frozenset[tuple[str, Any]]:
    return frozenset(pair for pair in choices if pair[0] in labels)


def _title(one: _Use, other: _Use) -> str:
    places = " and ".join(dict.fromkeys(f"'{use.layer}'" for use in (one, other)))
    return f"parameter '{one.name}' of a {one.kind} is shared by modules ({places})"


def _bits(layer: nn.Module, name: str, parameter: Tensor, weight_bits: int | None = None) -> int:
    """Return the bits of one element, where a layer is quantized those of its weights."""
    if isinstance(layer, Quantized) and name == "weight":
        return weight_bits or layer.weight_bits
    return 8 * parameter.element_size()


def _exclude(one: Condition, other: Condition) -> bool:
    """Whether no path meets both conditions."""
    choices = dict(one)
    return any(choices.get(label, choice) != choice for label, choice in other)
