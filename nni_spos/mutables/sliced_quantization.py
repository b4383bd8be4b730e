"""The weight-sharing forms of the quantized layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nni.mutable import MutableExpression
from torch import Tensor, nn

from nni_spos.mutables.boxes import Slices
from nni_spos.mutables.convolution import SlicedConv2d
from nni_spos.mutables.quantization import (
    QuantConv2d,
    Quantized,
    QuantizedConv2d,
    QuantizedLinear,
    QuantLinear,
    check_layer_bits,
    pair_name,
)
from nni_spos.mutables.quantizer_kinds import find_quantizer
from nni_spos.mutables.sliced import SlicedLinear, SlicedOperation, check_numbers
from nni_spos.mutables.sliced_norm import NORM_TENSORS, norm_slices, normalize
from nni_spos.mutables.switchable_norm import (
    ACTIVATIONS,
    PairedBatchNorm2d,
    SwitchableBatchNorm2d,
)

BITS = ["weight_bits", "activation_bits"]


class SlicedQuantization(SlicedOperation, Quantized):
    """Shared float weights, and what the quantizer learns, once for every bit width."""

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        kind = find_quantizer(self.quantizer)
        self.clip = self.step = self.weight_factor = None
        self._activations = f"{kind.activation_tensor}s"
        self._weights = f"{kind.weight_tensor}s" if kind.weight_tensor else ""
        bits = self._bits_of("activation_bits")
        learned = {str(number): self.new_activation_tensor() for number in bits}
        setattr(self, self._activations, nn.ParameterDict(learned))
        if self._weights:
            learned = {str(x): self.new_weight_tensor() for x in self._bits_of("weight_bits")}
            setattr(self, self._weights, nn.ParameterDict(learned))

    def _bits_of(self, argument: str) -> list[int]:
        return sorted({options.get(argument, 32) for options in self._options} - {32})

    @classmethod
    def check(cls, **arguments: Any) -> None:
        super().check(**arguments)
        weight_bits, activation_bits = (arguments.get(name, 32) for name in BITS)
        check_layer_bits(
            weight_bits,
            activation_bits,
            arguments.get("signed", False),
            quantizer=arguments.get("quantizer", "dorefa"),
        )

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        return 32 if name in BITS else super().super_init_argument(name, value_choice)

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        found = super().slices(**arguments)
        weight_bits, bits = (arguments[name] for name in BITS)
        if bits != 32:
            found[f"{self._activations}.{bits}"] = ()
        if weight_bits != 32 and self._weights:
            found[f"{self._weights}.{weight_bits}"] = found["weight"][:1]
        return found

    @staticmethod
    def plain_name(name: str) -> str:
        group, _, bits = name.partition(".")
        return group.removesuffix("s") if bits else name

    def activation_tensors(self) -> Mapping[int, Tensor]:
        return {int(bits): x for bits, x in getattr(self, self._activations).items()}

    def operands(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return activations and weights at the bit widths of the arguments."""
        weight_bits, bits = (arguments[name] for name in BITS)
        x = self.quantize(x, tensors.get(f"{self._activations}.{bits}"), bits)
        learned = tensors.get(f"{self._weights}.{weight_bits}")
        return x, self.quantize_weights(tensors["weight"], learned, weight_bits)


class SlicedQuantConv2d(SlicedQuantization, SlicedConv2d, QuantizedConv2d):
    """A `QuantConv2d` whose path has a part of the weights, at some bit widths."""

    bound_type = QuantConv2d
    plain = QuantizedConv2d
    argument_list: ClassVar[list[str]] = [*SlicedConv2d.argument_list, *BITS]


class SlicedQuantLinear(SlicedQuantization, SlicedLinear, QuantizedLinear):
    """A `QuantLinear` whose path has a part of the weights, at some bit widths."""

    bound_type = QuantLinear
    plain = QuantizedLinear
    argument_list: ClassVar[list[str]] = [*SlicedLinear.argument_list, *BITS]

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        x, weight = self.operands(x, tensors, arguments)
        return nn.functional.linear(x, weight, tensors.get("bias"))


class SlicedSwitchableBatchNorm2d(SlicedOperation, PairedBatchNorm2d):
    """A `SwitchableBatchNorm2d` with all its sets of tensors, such as ``2w4a``, or ``4a``."""

    bound_type = SwitchableBatchNorm2d
    plain = PairedBatchNorm2d
    input_channels = (1, "num_features")
    argument_list: ClassVar[list[str]] = ["num_features", *BITS]
    track_running_stats: bool

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        names = {self._set_name(x) for x in self._options}
        settings = {
            "num_features": self.num_features,
            "eps": self.eps,
            "momentum": self.momentum,
            "affine": self.affine,
            "track_running_stats": self.track_running_stats,
        }
        self.sets = nn.ModuleDict({name: nn.BatchNorm2d(**settings) for name in sorted(names)})
        for tensor in (*NORM_TENSORS, "num_batches_tracked"):
            setattr(self, tensor, None)
        self.track_running_stats = False  # the sets do: PyTorch must not look for tensors here

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_numbers(arguments, "num_features")
        check_layer_bits(*(arguments[name] for name in BITS))

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        name = self._set_name(arguments)
        return norm_slices(self.sets[name], arguments["num_features"], f"sets.{name}.")

    def _set_name(self, arguments: Mapping[str, Any]) -> str:
        weight_bits, activation_bits = (arguments[name] for name in BITS)
        if self.per == ACTIVATIONS:
            return f"{activation_bits}a"
        return pair_name(weight_bits, activation_bits)

    @staticmethod
    def plain_name(name: str) -> str:
        return name.rpartition(".")[2]

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        plain = {self.plain_name(name): tensor for name, tensor in tensors.items()}
        return normalize(x, plain, arguments, self.training)
