"""Parameters of a path, those of every module of its network, and their bits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_spos.errors import CostError
from nni_spos.mutables import SlicedOperation
from nni_spos.mutables.quantization import Quantized
from nni_spos.profilers.trace import Condition


@dataclass(frozen=True)
class ParameterCount:
    """Elements of one parameter that paths may have.

    Parameters
    ----------
    condition
        When it is part of a path.
    number
        Of elements.
    bits
        Of one element.
    """

    condition: Condition
    number: int
    bits: int

    @property
    def size_bytes(self) -> int:
        """Whole bytes of all elements, packed."""
        return -(-self.number * self.bits // 8)


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
        Modules share a parameter, but under different labels.
    """
    seen: dict[int, list[Condition]] = defaultdict(list)

    def is_new(shared: object, condition: Condition, title: str) -> bool:
        users = seen[id(shared)]
        if any(set(user) <= set(condition) for user in users):
            return False
        if not all(_exclude(user, condition) for user in users):
            raise CostError(
                f"{title} is shared by modules under different choice units, which cannot be "
                "counted by choice."
            )
        users.append(condition)
        return True

    def walk(module: nn.Module, condition: Condition) -> Iterator[ParameterCount]:
        if isinstance(module, SlicedOperation):
            if is_new(module, condition, f"a {type(module).__name__}"):
                yield from _parts(module, condition)
            return
        for name, parameter in module.named_parameters(recurse=False):
            if is_new(parameter, condition, f"parameter '{name}' of a {type(module).__name__}"):
                yield ParameterCount(condition, parameter.numel(), _bits(module, name, parameter))
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


def _parts(operation: SlicedOperation, condition: Condition) -> Iterator[ParameterCount]:
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
                yield ParameterCount(merged, number, bits)


def _bits(layer: nn.Module, name: str, parameter: Tensor, weight_bits: int | None = None) -> int:
    """Return the bits of one element, where a layer is quantized those of its weights."""
    if isinstance(layer, Quantized) and name == "weight":
        return weight_bits or layer.weight_bits
    return 8 * parameter.element_size()


def _exclude(one: Condition, other: Condition) -> bool:
    """Whether no path meets both conditions."""
    choices = dict(one)
    return any(choices.get(label, choice) != choice for label, choice in other)
