"""The quantizers that a layer can have: which tensors each learns, and what it computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nni_spos.errors import QuantizationError, unknown
from nni_spos.mutables.learned_steps import (
    activation_step,
    first_step,
    integer_range,
    quantize_to_steps,
    weight_steps,
)
from nni_spos.mutables.quantizers import (
    FULL_PRECISION,
    odd_integers,
    positive_clip,
    quantize_activation,
    quantize_signed_activation,
    quantize_weight,
)


@dataclass(frozen=True)
class Integers:
    """Quantized weights as whole numbers: times the scale they are what the layer computes with.

    Parameters
    ----------
    values
        Shape of the weights, of type int32.
    scale
        Shape () or (out_channels,).
    """

    values: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Grid:
    """The levels of quantized inputs: whole numbers `low` to `high`, times `scale`."""

    scale: float
    low: int
    high: int


class Quantizer(ABC):
    """What quantized layers of one kind do with weights and inputs.

    It has no state: what is learned are parameters of the layer, which each method gets.
    """

    weight_tensor: ClassVar[str] = ""
    """Name of the layer's parameter for its weights; "" if there is none."""
    activation_tensor: ClassVar[str]
    """Name of the layer's parameter for its inputs."""

    @abstractmethod
    def check(self, weight_bits: int) -> None:
        """Refuse bits of weights that it does not have. Raises QuantizationError."""

    def new_weight_tensor(self, weight: Tensor) -> nn.Parameter:
        """Return the parameter for weights, as it begins; only if there is one."""
        raise NotImplementedError

    @abstractmethod
    def new_activation_tensor(self, weight: Tensor, initial_clip: float) -> nn.Parameter:
        """Return the parameter for inputs, shape (), on the device of the weights."""

    @abstractmethod
    def weight(self, weight: Tensor, learned: Tensor | None, bits: int) -> Tensor:
        """Return quantized weights; `learned` is the parameter, None at 32 bits."""

    @abstractmethod
    def activation(
        self, x: Tensor, learned: Tensor, bits: int, *, signed: bool, initial_clip: float
    ) -> Tensor:
        """Return quantized inputs."""

    @abstractmethod
    def integers(self, weight: Tensor, learned: Tensor | None, bits: int) -> Integers:
        """Return the whole numbers behind `weight`, at 1 to 8 bits."""

    @abstractmethod
    def grid(self, learned: Tensor, bits: int, *, signed: bool, initial_clip: float) -> Grid:
        """Return the levels behind `activation`, at 1 to 8 bits."""

    @abstractmethod
    def start(self, learned: Tensor, highest: Tensor, bits: int, *, signed: bool) -> None:
        """Set the parameter for inputs so that the highest level is a value above 0, shape ()."""

    @abstractmethod
    def begin(self, x: Tensor, learned: Mapping[int, Tensor], *, signed: bool) -> None:
        """Set parameters for inputs, by their bits, that were never set, from the first inputs."""


class DoReFa(Quantizer):
    """Weights as in DoReFa-Net, inputs with a learned clipping value as in PACT."""

    activation_tensor = "clip"

    def check(self, weight_bits: int) -> None:
        """It has all bits."""

    def new_activation_tensor(self, weight: Tensor, initial_clip: float) -> nn.Parameter:
        return nn.Parameter(torch.full((), initial_clip, device=weight.device))

    def weight(self, weight: Tensor, learned: Tensor | None, bits: int) -> Tensor:
        return quantize_weight(weight, bits)

    def activation(
        self, x: Tensor, learned: Tensor, bits: int, *, signed: bool, initial_clip: float
    ) -> Tensor:
        quantize = quantize_signed_activation if signed else quantize_activation
        return quantize(x, positive_clip(learned), bits)

    def integers(self, weight: Tensor, learned: Tensor | None, bits: int) -> Integers:
        """Return odd numbers: the levels are half a step from zero, and a step apart."""
        return Integers(*odd_integers(weight, bits))

    def grid(self, learned: Tensor, bits: int, *, signed: bool, initial_clip: float) -> Grid:
        high = 2 ** (bits - signed) - 1
        return Grid(float(positive_clip(learned) / high), -high if signed else 0, high)

    @torch.no_grad()
    def start(self, learned: Tensor, highest: Tensor, bits: int, *, signed: bool) -> None:
        learned.copy_(highest)

    def begin(self, x: Tensor, learned: Mapping[int, Tensor], *, signed: bool) -> None:
        """Its clipping values begin with a number that is given."""


class Symmetric(Quantizer):
    """Integers times a learned step: one for each output channel, and one for the inputs.

    A weight's parameter is the factor of the step that follows from the weights, so that weights
    which are loaded later begin with a step of theirs. That of inputs is the step itself; it is 0
    until the first batch in training mode.
    """

    weight_tensor = "weight_factor"
    activation_tensor = "step"

    def check(self, weight_bits: int) -> None:
        if weight_bits == 1:
            raise QuantizationError(
                "the quantizer 'symmetric' has no 1-bit weights, since zero is one of its levels. "
                "Use 2 or more bits, or the quantizer 'dorefa'."
            )

    def new_weight_tensor(self, weight: Tensor) -> nn.Parameter:
        return nn.Parameter(torch.ones(len(weight), device=weight.device))

    def new_activation_tensor(self, weight: Tensor, initial_clip: float) -> nn.Parameter:
        return nn.Parameter(torch.zeros((), device=weight.device))

    def weight(self, weight: Tensor, learned: Tensor | None, bits: int) -> Tensor:
        if bits == FULL_PRECISION or learned is None:
            return weight
        return quantize_to_steps(weight, weight_steps(weight, learned, bits), bits, signed=True)

    def activation(
        self, x: Tensor, learned: Tensor, bits: int, *, signed: bool, initial_clip: float
    ) -> Tensor:
        step = activation_step(learned, initial_clip, bits, signed)
        return quantize_to_steps(x, step, bits, signed)

    def integers(self, weight: Tensor, learned: Tensor | None, bits: int) -> Integers:
        assert learned is not None
        steps = weight_steps(weight, learned, bits).detach()
        by_row = steps.view(-1, *[1] * (weight.dim() - 1))
        values = (weight.detach() / by_row).round_().clamp_(*integer_range(bits, True))
        return Integers(values.int(), steps)

    def grid(self, learned: Tensor, bits: int, *, signed: bool, initial_clip: float) -> Grid:
        step = activation_step(learned, initial_clip, bits, signed)
        return Grid(float(step), *integer_range(bits, signed))

    @torch.no_grad()
    def start(self, learned: Tensor, highest: Tensor, bits: int, *, signed: bool) -> None:
        learned.copy_(highest / integer_range(bits, signed)[1])

    @torch.no_grad()
    def begin(self, x: Tensor, learned: Mapping[int, Tensor], *, signed: bool) -> None:
        if all(float(step) for step in learned.values()):
            return
        magnitudes = x.abs().float()
        found = torch.stack([magnitudes.mean(), magnitudes.amax()])
        # All processes of a training go on with the same step: each has other images.
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(found)
            found /= torch.distributed.get_world_size()
        if not bool(found[0] > 0) or not bool(found.isfinite().all()):
            return
        mean, largest = found.unbind()
        for bits, step in learned.items():
            if float(step) == 0:
                step.copy_(first_step(mean, largest, bits, signed))


QUANTIZERS: Mapping[str, Quantizer] = {"dorefa": DoReFa(), "symmetric": Symmetric()}
"""By the name that layers and spaces take."""


def find_quantizer(name: object) -> Quantizer:
    """Return a quantizer. Raises QuantizationError for an unknown name."""
    if not isinstance(name, str) or name not in QUANTIZERS:
        raise QuantizationError(unknown("quantizer", str(name), QUANTIZERS))
    return QUANTIZERS[name]
