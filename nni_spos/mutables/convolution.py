"""The weight-sharing form of ``MutableConv2d``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import MutableConv2d
from torch import Tensor, nn

from nni_spos.errors import SpaceError
from nni_spos.mutables.boxes import Slices
from nni_spos.mutables.sliced import SlicedOperation, check_numbers

Pair = tuple[int, int]


class SlicedConv2d(SlicedOperation, nn.Conv2d):
    """Convolution whose channels, kernel size, groups and so on may be choices.

    A path uses the weights of the first output channels, of the first input channels of each
    group, and the middle of the largest kernel. Of an even difference nothing is lost; with an
    odd one the middle lies half a pixel to the top left.
    """

    bound_type = MutableConv2d
    plain = nn.Conv2d
    input_channels = (1, "in_channels")
    tensor_sizes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "weight": ("out_channels", "in_channels"),
        "bias": ("out_channels",),
        "weight_factor": ("out_channels",),
    }
    argument_list: ClassVar[list[str]] = [
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    ]

    def __init__(self, module_kwargs: dict[str, Any]):
        super().__init__(module_kwargs)
        weight: Tensor = self.get_tensor("weight")
        depth = self._max_channels_per_group()
        if weight.shape[1] != depth:  # groups that are not in proportion to the channels
            shape = (weight.shape[0], depth, *weight.shape[2:])
            self.weight = nn.Parameter(weight.new_empty(shape))
            self.reset_parameters()

    @classmethod
    def check(cls, **arguments: Any) -> None:
        check_convolution(arguments)

    def super_init_argument(self, name: str, value_choice: MutableExpression) -> Any:
        if name in ("kernel_size", "padding", "stride", "dilation"):
            return largest_sizes(name, self._options)
        if name == "groups":
            # As many as leave the channels of a group at their most, for depth-wise ones.
            channels = max(options["in_channels"] for options in self._options)
            outputs = max(options["out_channels"] for options in self._options)
            groups = channels // self._max_channels_per_group()
            return groups if channels % groups == 0 and outputs % groups == 0 else 1
        return super().super_init_argument(name, value_choice)

    def _max_channels_per_group(self) -> int:
        return max(x["in_channels"] // x.get("groups", 1) for x in self._options)

    def slices(self, **arguments: Any) -> dict[str, Slices]:
        outputs = slice(arguments["out_channels"])
        inputs = slice(arguments["in_channels"] // arguments["groups"])
        kernel = centre(arguments["kernel_size"], self.weight.shape[2:])
        found: dict[str, Slices] = {"weight": (outputs, inputs, *kernel)}
        return found | ({"bias": (outputs,)} if self.bias is not None else {})

    def compute(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Tensor:
        x, weight = self.operands(x, tensors, arguments)
        return convolve(x, weight, tensors.get("bias"), arguments)

    def operands(
        self, x: Tensor, tensors: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Return what is convolved: activations and weights."""
        return x, tensors["weight"]


def check_convolution(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that no convolution can have. Raises SpaceError."""
    groups = arguments.get("groups", 1)
    check_numbers({"groups": 1, **arguments}, "in_channels", "out_channels", "groups")
    for name in ("kernel_size", "stride", "dilation"):
        for number in pair(arguments.get(name, 1)):
            check_numbers({name: number}, name)
    padding = arguments.get("padding", 0)
    if not isinstance(padding, str) and min(pair(padding)) < 0:
        raise SpaceError(f"padding must not be negative, got {padding!r}.")
    for name in ("in_channels", "out_channels"):
        if arguments[name] % groups:
            raise SpaceError(
                f"{name} {arguments[name]} is not a multiple of groups {groups}, which is "
                "one of its combinations of choices. Let groups follow the same choice, or "
                "choose among multiples."
            )


def largest_sizes(name: str, options: Sequence[Mapping[str, Any]]) -> Pair:
    """Return the largest height and width that an argument has. Raises SpaceError for text."""
    values = [arguments[name] for arguments in options]
    for value in values:
        if isinstance(value, str):
            raise SpaceError(f"{name} can only be a choice between numbers, got {value!r}.")
    sizes = [pair(value) for value in values]
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def centre(kernel_size: Any, largest: Sequence[int]) -> list[slice]:
    """Return the middle of the largest kernel that a smaller one uses, by dimension."""
    return [
        slice((most - size) // 2, (most - size) // 2 + size)
        for size, most in zip(pair(kernel_size), largest, strict=True)
    ]


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, arguments: Mapping[str, Any]
) -> Tensor:
    """Do what ``nn.Conv2d`` with these arguments does, with other weights.

    Parameters
    ----------
    x
        Shape (N, in_channels, H, W).
    weight
        Shape (out_channels, in_channels / groups, height, width).
    bias
        Shape (out_channels,), or none.
    arguments
        Stride, padding, dilation, groups and padding mode.
    """
    padding, mode = arguments["padding"], arguments["padding_mode"]
    if mode != "zeros":
        x = nn.functional.pad(x, _margins(weight, padding, arguments["dilation"]), mode)
        padding = 0
    return nn.functional.conv2d(
        x, weight, bias, arguments["stride"], padding, arguments["dilation"], arguments["groups"]
    )


def _margins(weight: Tensor, padding: Any, dilation: Any) -> list[int]:
    """Return left, right, top and bottom."""
    if padding == "valid":
        return [0, 0, 0, 0]
    if padding != "same":
        height, width = pair(padding)
        return [width, width, height, height]
    reach = [d * (size - 1) for d, size in zip(pair(dilation), weight.shape[2:], strict=True)]
    return [x for total in reversed(reach) for x in (total // 2, total - total // 2)]


def pair(value: Any) -> Pair:
    """Return (height, width) of an argument that may be one number for both."""
    return (value[0], value[1]) if isinstance(value, tuple | list) else (value, value)
