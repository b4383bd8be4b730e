"""The weight-sharing forms of the quantized layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nni.mutable import MutableExpression
from torch import Tensor, nn

from nni_spos.mutables.convolution import SlicedConv2d
from nni_spos.mutables.quantization import (
    PairedBatchNorm2d,
    QuantConv2d,
    Quantized,
    QuantizedConv2d,
    QuantizedLinear,
    QuantLinear,
    SwitchableBatchNorm2d,
    check_layer_bits,
    pair_name,
)
from nni_spos.mutables.quantizers import quantize_weight
from nni_spos.mutables.sliced import (
    NORM_TENSORS,
    SlicedLinear,
    SlicedOperation,
    Slices,
    check_numbers,
    norm_slices,
    normalize,
)

BITS = ["weight_bits", "activation_bits"]


class SlicedQuantization(SlicedOperation, Quantized):
    """Shared float weights, and one clipping value for every bit width of the activations."""

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        bits = {options.get("activation_bits", 32) for options in self._options} - {32}
        self.clip = None
        self.clips = nn.ParameterDict({str(number): self.new_clip() for number in sorted(bits)})

    @classmethod
    def check(cls, **arguments: Any) -> None:
        super().check(**arguments)
        weight_bits, activation_bits = (arguments.get(name, 32) for name in BITS)
        check_layer_bits(weight_bits, activation_bits, arguments.get("signed", False))

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        return 32 if name in BITS else super().super_init_argument(name, value_choice)

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        bits = arguments["activation_bits"]
        return super().slices(**arguments) | ({f"clips.{bits}": ()} if bits != 32 else {})

    @staticmethod
    def plain_name(name: str) -> str:
        return "clip" if name.startswith("clips.") else name

    def operands(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return activations and weights at the bit widths of the arguments."""
        bits = arguments["activation_bits"]
        x = self.quantize(x, tensors.get(f"clips.{bits}"), bits)
        return x, quantize_weight(tensors["weight"], arguments["weight_bits"])


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
    """A `SwitchableBatchNorm2d` with all its sets of tensors."""

    bound_type = SwitchableBatchNorm2d
    plain = PairedBatchNorm2d
    input_channels = (1, "num_features")
    argument_list: ClassVar[list[str]] = ["num_features", *BITS]
    track_running_stats: bool

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        names = {pair_name(x["weight_bits"], x["activation_bits"]) for x in self._options}
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
        name = pair_name(arguments["weight_bits"], arguments["activation_bits"])
        return norm_slices(self.sets[name], arguments["num_features"], f"sets.{name}.")

    @staticmethod
    def plain_name(name: str) -> str:
        return name.rpartition(".")[2]

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        plain = {self.plain_name(name): tensor for name, tensor in tensors.items()}
        return normalize(x, plain, arguments, self.training)
