"""What a metric sees of a space: its layers and parameters, and which paths have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nni_spos.path import Choice, PathSpace

Condition = tuple[tuple[str, Choice], ...]
"""Label and choice of every choice unit that a layer lies in, outermost first, and of the choices
that its arguments depend on."""


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or of another module that computes something itself, for one image.

    Parameters
    ----------
    name
        Dotted name in the model space; "" for the space itself.
    module
        The ``nn.Module``, in most spaces on PyTorch's meta device, so without values; of a layer
        whose arguments are choices, its form for some.
    input_shape, output_shape
        Of the first tensor given and returned, with the batch dimension (1); () without one.
    condition
        When the layer is part of a path.
    macs
        Multiply-adds.
    weight_bits, activation_bits
        Of a quantized layer; None of another.
    varies
        Whether its shapes are others where other choices are made elsewhere.
    macs_vary
        Whether its multiply-adds are.
    title
        How messages call it.
    places
        Where code computes in it that is not PyTorch's or ours, if it varies.
    """

    name: str
    module: Any
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    condition: Condition
    macs: int
    weight_bits: int | None = None
    activation_bits: int | None = None
    varies: bool = False
    macs_vary: bool = False
    title: str = ""
    places: str = ""


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


@dataclass(frozen=True)
class Network:
    """The layers and parameters of all paths of a space.

    Parameters
    ----------
    space
        Labels and their choices.
    layers
        In the order in which they are called; of layers whose arguments are choices, one for every
        combination of these.
    parameters
        Each counts once in a path, however many layers share it.
    find_peaks
        Returns what operators need of memory for their inputs, their outputs and what is read
        later, in bytes, each with its condition; None where only layers are known.
    """

    space: PathSpace
    layers: Sequence[Layer]
    parameters: Sequence[ParameterCount]
    find_peaks: Callable[[], Sequence[tuple[Condition, int]]] | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether some layer has bit widths."""
        return any(layer.weight_bits is not None for layer in self.layers)
