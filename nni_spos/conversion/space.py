"""The model space of a network that is there: its layers, with choices in place of numbers."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import nni
import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import (
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    ParametrizedModule,
)
from torch import Tensor, nn

from nni_spos.conversion.plan import ConversionPlan, Width, tensor_slots
from nni_spos.conversion.table import describe_plan
from nni_spos.mutables.channel import Channels
from nni_spos.mutables.parts import ChannelParts
from nni_spos.mutables.quantization import QuantConv2d, QuantLinear, bits_choice
from nni_spos.path import Choice
from nni_spos.spaces.registry import construction


class Skip(nn.Module):
    """What a block is where it is left out: its input goes on, whatever else the block takes."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


class ConvertedSpace(ModelSpace):
    """A network whose layers have choices; made by `nni_spos.convert`.

    Its largest path, the first choice of every label, is the network that was given, with its
    weights. Every other path begins with a part of these.

    Parameters
    ----------
    network
        Its channels are in the order in which narrow paths keep them. It is copied.
    plan
        What may be chosen.
    """

    def __init__(self, network: nn.Module, plan: ConversionPlan):
        super().__init__()
        self.plan = plan
        sides = _sides(plan)
        choosing = [
            name
            for name, _ in network.named_modules()
            if name in sides or f"{name}.kernel" in plan.kernels or f"{name}.bits" in plan.bits
        ]
        self.network = _copy(network, choosing)
        layers = dict(self.network.named_modules())
        for name in choosing:
            become(layers[name], _choosing_layer(name, layers[name], plan, sides.get(name, {})))
        replace(
            self.network,
            {
                layers[name]: LayerChoice({"block": layers[name], "identity": Skip()}, label=label)
                for label, name in plan.skips.items()
            },
        )
        self.train(network.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)

    def __repr__(self) -> str:
        return describe_plan(self.plan)


def _copy(network: nn.Module, choosing: Collection[str]) -> nn.Module:
    """Return a copy of a network, which has the tensors of some layers in common with it.

    These layers will have choices, and tensors of their own.
    """
    layers = dict(network.named_modules())
    own = {id(x): x for name in choosing for x in layers[name].parameters(recurse=False)}
    for name in layers.keys() - set(choosing):
        for parameter in layers[name].parameters(recurse=False):
            own.pop(id(parameter), None)
    return copy.deepcopy(network, dict(own))


def build(
    network: nn.Module, plan: ConversionPlan, path: Mapping[str, Choice] | None = None
) -> Any:
    """Build the space of a plan, or the network of one of its paths."""
    with construction(path), torch.random.fork_rng(devices=[]):
        return ConvertedSpace(network, plan)


def _sides(plan: ConversionPlan) -> dict[str, dict[str, tuple[str, Width]]]:
    """Return the choice that each side of a layer follows, by name of the layer."""
    found: dict[str, dict[str, tuple[str, Width]]] = {}
    for label, width in plan.widths.items():
        for side, names in (("outputs", width.makes), ("inputs", width.reads)):
            for name in names:
                found.setdefault(name, {})[side] = (label, width)
    return found


def _choosing_layer(
    name: str, module: nn.Module, plan: ConversionPlan, sides: Mapping[str, tuple[str, Width]]
) -> nn.Module:
    """Return a layer in which numbers are choices, with the weights of the given one."""

    def number(side: str, full: int) -> Channels:
        if side not in sides:
            return full
        label, width = sides[side]
        chosen = nni.choice(label, list(width.choices))
        if not width.is_parted:
            return scaled(chosen, full, width.choices[0])
        totals = map(sum, width.numbers(name, side, full).kept)
        return looked_up(chosen, dict(zip(width.choices, totals, strict=True)))

    if isinstance(module, nn.BatchNorm2d):
        made: nn.Module = MutableBatchNorm2d(
            number("outputs", module.num_features),
            eps=module.eps,
            momentum=module.momentum,
            affine=module.affine,
            track_running_stats=module.track_running_stats,
        )
        return _finished(name, made, module, sides)
    bits = plan.bits.get(f"{name}.bits")
    quantized: dict[str, Any] = {}
    if bits is not None:
        choice = bits_choice(f"{name}.bits", bits.pairs)
        quantized = {
            "weight_bits": choice.weight,
            "activation_bits": choice.activation,
            "signed": bits.is_signed,
            "quantizer": bits.quantizer,
        }
    # What is not quantized has nothing but what it is given: no time is spent on values for it.
    with contextlib.nullcontext() if bits is not None else torch.device("meta"):
        made = _convolution_or_linear(name, module, plan, number, quantized)
    return _finished(name, made, module, sides)


def _convolution_or_linear(
    name: str,
    module: nn.Module,
    plan: ConversionPlan,
    number: Callable[[str, int], Channels],
    quantized: Mapping[str, Any],
) -> nn.Module:
    """Return a layer in which numbers are choices; its weights are any."""
    has_bias = module.bias is not None
    if isinstance(module, nn.Linear):
        features = number("inputs", module.in_features), number("outputs", module.out_features)
        linear = QuantLinear if quantized else MutableLinear
        return linear(*features, bias=has_bias, **quantized)
    assert isinstance(module, nn.Conv2d)
    size: Any = module.kernel_size
    padding: Any = module.padding
    if f"{name}.kernel" in plan.kernels:
        size = nni.choice(f"{name}.kernel", list(plan.kernels[f"{name}.kernel"]))
        padding = (size - 1) // 2 * module.dilation[0]
    groups: Channels = module.groups if module.groups == 1 else number("inputs", module.groups)
    convolution = QuantConv2d if quantized else MutableConv2d
    return convolution(
        number("inputs", module.in_channels),
        number("outputs", module.out_channels),
        kernel_size=size,
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=groups,
        bias=has_bias,
        padding_mode=module.padding_mode,
        **quantized,
    )


SIZES: Mapping[type[nn.Module], Mapping[str, str]] = {
    nn.Conv2d: {"inputs": "in_channels", "outputs": "out_channels"},
    nn.Linear: {"inputs": "in_features", "outputs": "out_features"},
    nn.BatchNorm2d: {"outputs": "num_features"},
}
"""Arguments that are the numbers of channels at the sides of a layer."""


def _finished(
    name: str, made: nn.Module, given: nn.Module, sides: Mapping[str, tuple[str, Width]]
) -> nn.Module:
    """Give a layer with choices the weights of the one it stands for, and its parts."""
    parts: dict[str, ChannelParts] = {}
    for side, argument in SIZES[type(given)].items():
        if side in sides and len(sides[side][1].sequences[name, side]) > 1:
            parts[side] = sides[side][1].numbers(name, side, getattr(given, argument))
    _take_weights(made, given, parts)
    if parts and isinstance(made, ParametrizedModule):
        is_grouped = getattr(given, "groups", 1) > 1  # its inputs are in groups, not in parts
        made.parts = {
            SIZES[type(given)][side]: own
            for side, own in parts.items()
            if not (is_grouped and side == "inputs")
        }
    return made


def scaled(choice: Channels, full: int, most: int) -> Channels:
    """Return a number that is `full` where a choice is `most`, and in proportion elsewhere."""
    if full == most:
        return choice
    if full % most == 0:
        return choice * (full // most)
    return choice * full // most


def looked_up(choice: Channels, numbers: Mapping[int, int]) -> Channels:
    """Return the number that belongs to a choice."""
    if isinstance(choice, MutableExpression):
        return MutableExpression(functools.partial(_look_up, dict(numbers)), "part of {}", [choice])
    return numbers[choice]


def _look_up(numbers: Mapping[int, int], choice: int) -> int:
    return numbers[choice]


def _take_weights(
    made: nn.Module, given: nn.Module, parts: Mapping[str, ChannelParts]
) -> nn.Module:
    """Let a layer have the part of another layer's tensors that it has room for."""
    for name, source, sides in tensor_slots(given):
        target: Tensor = getattr(made, name)
        taken = source.detach()
        for dim, size in enumerate(target.shape[:2]):
            own = parts.get(sides[dim] or "") if dim < len(sides) else None
            if own is None:
                taken = taken.narrow(dim, 0, size)
            else:
                places = torch.tensor(own.places(size), device=taken.device)
                taken = taken.index_select(dim, places)
        for dim in range(2, target.dim()):  # the centre of a larger kernel
            taken = taken.narrow(
                dim, (source.shape[dim] - target.shape[dim]) // 2, target.shape[dim]
            )
        # Cloned, with the type, the place and the layout that the given one has.
        setattr(
            made,
            name,
            nn.Parameter(taken.clone(), source.requires_grad)
            if isinstance(source, nn.Parameter)
            else taken.clone(),
        )
    if isinstance(given, nn.BatchNorm2d) and given.num_batches_tracked is not None:
        made.num_batches_tracked = given.num_batches_tracked.clone()
    weight: Any = given.weight if given.weight is not None else torch.empty(0)
    for name, parameter in made.named_parameters():  # clipping values
        if name not in ("weight", "bias"):
            parameter.data = parameter.data.to(weight)
    return made.train(given.training)


def become(module: nn.Module, made: nn.Module) -> None:
    """Let a layer be another one, in place: lists and functions may hold it as well."""
    vars(module).clear()
    vars(module).update(vars(made))
    module.__class__ = made.__class__


def replace(network: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, wherever modules of a network hold these.

    Modules that come in keep what they hold.
    """
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child in others:
                setattr(parent, name, others[child])
