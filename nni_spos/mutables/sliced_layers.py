"""The weight-sharing forms of transposed convolutions, norms of single images, and PReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import (
    MutableConvTranspose2d,
    MutableGroupNorm,
    MutableLayerNorm,
    MutablePReLU,
)
from torch import Tensor, nn

from nni_spos.errors import SpaceError
from nni_spos.mutables.boxes import Slices
from nni_spos.mutables.convolution import centre, check_convolution, largest_sizes, pair
from nni_spos.mutables.sliced import SlicedOperation, check_numbers

SIZES = ("kernel_size", "stride", "padding", "output_padding", "dilation")


class SlicedConvTranspose2d(SlicedOperation, nn.ConvTranspose2d):
    """Transposed convolution whose channels, kernel size, groups and so on may be choices.

    A path uses the weights of the first input channels, of the first output channels of each
    group, and the middle of the largest kernel.
    """

    bound_type = MutableConvTranspose2d
    plain = nn.ConvTranspose2d
    input_channels = (1, "in_channels")
    argument_list: ClassVar[list[str]] = ["in_channels", "out_channels", "groups", *SIZES]

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        weight: Tensor = self.get_tensor("weight")
        depth = max(x["out_channels"] // x.get("groups", 1) for x in self._options)
        if weight.shape[1] != depth:  # groups that are not in proportion to the channels
            shape = (weight.shape[0], depth, *weight.shape[2:])
            self.weight = nn.Parameter(weight.new_empty(shape))
            self.reset_parameters()

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_convolution(arguments)
        for number in pair(arguments.get("output_padding", 0)):
            if type(number) is not int or number < 0:
                raise SpaceError(f"output_padding must not be negative, got {number!r}.")

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        if name in SIZES:
            return largest_sizes(name, self._options)
        if name == "groups":
            # Of the largest layers; the weight is made anew where they need more.
            return min(options[name] for options in self._options)
        return super().super_init_argument(name, value_choice)

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        inputs = slice(arguments["in_channels"])
        outputs = slice(arguments["out_channels"] // arguments["groups"])
        kernel = centre(arguments["kernel_size"], self.weight.shape[2:])
        found: dict[str, Slices] = {"weight": (inputs, outputs, *kernel)}
        if self.bias is not None:
            found["bias"] = (slice(arguments["out_channels"]),)
        return found

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        return nn.functional.conv_transpose2d(
            x,
            tensors["weight"],
            tensors.get("bias"),
            arguments["stride"],
            arguments["padding"],
            arguments["output_padding"],
            arguments["groups"],
            arguments["dilation"],
        )


class SlicedGroupNorm(SlicedOperation, nn.GroupNorm):
    """Group norm whose numbers of channels and of groups may be choices."""

    bound_type = MutableGroupNorm
    plain = nn.GroupNorm
    input_channels = (1, "num_channels")
    argument_list: ClassVar[list[str]] = ["num_groups", "num_channels", "eps"]

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_numbers(arguments, "num_groups", "num_channels")
        groups, channels = arguments["num_groups"], arguments["num_channels"]
        if channels % groups:
            raise SpaceError(
                f"num_channels {channels} is not a multiple of num_groups {groups}, which is one "
                "of its combinations of choices. Choose among multiples, for example with "
                "channel_choice(..., multiple_of=...)."
            )

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        if name == "num_groups":  # of as many channels as there are
            channels = max(options["num_channels"] for options in self._options)
            return next(x["num_groups"] for x in self._options if x["num_channels"] == channels)
        return super().super_init_argument(name, value_choice)

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        channels = slice(arguments["num_channels"])
        return {name: (channels,) for name, _ in self.named_parameters(recurse=False)}

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        return nn.functional.group_norm(
            x, arguments["num_groups"], tensors.get("weight"), tensors.get("bias"), arguments["eps"]
        )


class SlicedLayerNorm(SlicedOperation, nn.LayerNorm):
    """Layer norm whose normalised shape may be a choice; the first values of each size are used."""

    bound_type = MutableLayerNorm
    plain = nn.LayerNorm
    input_channels = (-1, "normalized_shape")
    argument_list: ClassVar[list[str]] = ["normalized_shape", "eps"]

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        if len({len(_shape(x["normalized_shape"])) for x in self._options}) > 1:
            raise SpaceError("normalized_shape must have as many sizes in all its choices.")

    @classmethod
    def check(cls, **arguments: Any) -> None:
        for number in _shape(arguments["normalized_shape"]):
            check_numbers({"normalized_shape": number}, "normalized_shape")

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        if name == "normalized_shape":
            shapes = [_shape(options[name]) for options in self._options]
            return tuple(map(max, zip(*shapes, strict=False)))
        return super().super_init_argument(name, value_choice)

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        part = tuple(slice(size) for size in _shape(arguments["normalized_shape"]))
        return {name: part for name, _ in self.named_parameters(recurse=False)}

    def resize(self, shape: tuple[int, ...], sample: Mapping[str, Any]) -> tuple[int, ...]:
        sizes = _shape(self.part_at(sample).arguments["normalized_shape"])
        return (*shape[: len(shape) - len(sizes)], *sizes)

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        sizes = list(_shape(arguments["normalized_shape"]))
        return nn.functional.layer_norm(
            x, sizes, tensors.get("weight"), tensors.get("bias"), arguments["eps"]
        )


class SlicedPReLU(SlicedOperation, nn.PReLU):
    """PReLU with a slope for each channel, whose number may be a choice."""

    bound_type = MutablePReLU
    plain = nn.PReLU
    input_channels = (1, "num_parameters")
    argument_list: ClassVar[list[str]] = ["num_parameters"]

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_numbers(arguments, "num_parameters")

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        return {"weight": (slice(arguments["num_parameters"]),)}

    def resize(self, shape: tuple[int, ...], sample: Mapping[str, Any]) -> tuple[int, ...]:
        # One slope is for any number of channels.
        is_one = self.part_at(sample).arguments["num_parameters"] == 1
        return shape if is_one else super().resize(shape, sample)

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        return nn.functional.prelu(x, tensors["weight"])


def _shape(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
