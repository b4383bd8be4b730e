"""What of a network may be chosen: its units, and what is left as it is with the reason."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from nni_spos.conversion.chains import Chain, find_chains, sequence_of
from nni_spos.conversion.channels import FIXED, ChannelIds
from nni_spos.conversion.tracing import LAYERS, ChannelTrace
from nni_spos.errors import SpaceError
from nni_spos.mutables.parts import ChannelParts
from nni_spos.recipe.conversion_settings import ChoiceSettings


class Width(NamedTuple):
    """A choice between numbers of channels.

    Parameters
    ----------
    choices
        Of the layer that the label names, the largest first: that is the given network. Where
        parts are concatenated, of all parts together.
    makes, reads
        Names of the layers that make these channels, and of those that read them. A layer with
        groups that follow, and a BatchNorm, is in both.
    kept
        How many sets of channels, each of which is kept or dropped as one, are kept of each part:
        by choice. There is one part unless channels are concatenated or divided.
    sequences
        Which parts, one after the other, are at the "inputs" or "outputs" of a layer, by
        (name, side).
    """

    choices: tuple[int, ...]
    makes: tuple[str, ...]
    reads: tuple[str, ...]
    kept: tuple[tuple[int, ...], ...]
    sequences: Mapping[tuple[str, str], tuple[int, ...]]

    @property
    def sets(self) -> int:
        """How many sets of channels there are."""
        return sum(self.kept[0])

    @property
    def is_parted(self) -> bool:
        """Whether channels are concatenated or divided."""
        return any(len(parts) != 1 for parts in (self.kept[0], *self.sequences.values()))

    def numbers(self, name: str, side: str, full: int) -> ChannelParts:
        """Return how many channels a side of a layer has of each of its parts.

        Parameters
        ----------
        name, side
            Of the layer, one of `sequences`.
        full
            Its channels in the given network.
        """
        sequence = self.sequences[name, side]
        times = full // sum(self.kept[0][part] for part in sequence)
        return ChannelParts(tuple(tuple(row[p] * times for p in sequence) for row in self.kept))


class Bits(NamedTuple):
    """A choice between pairs of bit widths of one layer.

    Parameters
    ----------
    pairs
        (weight bits, activation bits), the given network's first.
    is_signed
        Whether inputs can be negative.
    quantizer
        What quantizes.
    """

    pairs: tuple[tuple[int, int], ...]
    is_signed: bool
    quantizer: str


class Left(NamedTuple):
    """A part of a network that stays as it is."""

    part: str
    reason: str


@dataclass(frozen=True)
class ConversionPlan:
    """What of a network may be chosen, by label.

    Parameters
    ----------
    widths, kernels, bits
        By label. Kernels and bits are of the layer that the label names before its last dot.
    skips
        Names of blocks by label.
    shares
        Part of the network's multiply-adds that a unit has a say in, by label.
    left
        What stays as it is.
    """

    widths: Mapping[str, Width] = field(default_factory=dict)
    kernels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    bits: Mapping[str, Bits] = field(default_factory=dict)
    skips: Mapping[str, str] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    left: tuple[Left, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all units."""
        return (*self.widths, *self.kernels, *self.bits, *self.skips)

    def without(self, lost: Mapping[str, str]) -> ConversionPlan:
        """Return a plan in which these labels are left as they are, each with its reason."""

        def rest(units: Mapping[str, object]) -> dict[str, object]:
            return {label: unit for label, unit in units.items() if label not in lost}

        left = (*self.left, *(Left(label, reason) for label, reason in lost.items()))
        units: Any = {name: rest(getattr(self, name)) for name in UNITS}
        return ConversionPlan(**units, shares=self.shares, left=left)


UNITS = ("widths", "kernels", "bits", "skips")

REARRANGED = "they are concatenated or rearranged with others"
"""Why channels stay whose kept ones would not be at the places where they are looked for."""


@dataclass
class ChannelGroup:
    """Channels of several layers that are kept or dropped together.

    Parameters
    ----------
    chains
        The sets of channels by part: one unless they are concatenated or divided.
    slots
        (name of the layer, "inputs" or "outputs") of all layers that have them, with their parts.
    problem
        Why they stay as they are; "" if they need not.
    """

    chains: list[Chain]
    slots: dict[tuple[str, str], tuple[int, ...]]
    problem: str = ""


def make_plan(
    trace: ChannelTrace, network: nn.Module, choices: ChoiceSettings, ignore: Sequence[str] = ()
) -> ConversionPlan:
    """Return what of a network may be chosen.

    Raises
    ------
    SpaceError
        A pattern of `ignore` matches no module.
    """
    ignored = find_ignored(network, ignore)
    left: list[Left] = []
    if trace.problem:
        left.append(Left("training mode", f"it was not looked at: {trace.problem}"))
    left += _not_understood(network)
    total = sum(layer.macs for layer in trace.layers.values()) or 1
    widths: dict[str, Width] = {}
    shares: dict[str, float] = {}
    for label, group in groups(trace, network) if min(choices.channels, default=1) < 1 else ():
        names = {name for name, _ in group.slots}
        problem = group.problem
        if not problem and not choices.residual:
            problem = _coupling(trace, group)
        if not problem and (own := sorted(names & ignored)):
            problem = f"'{own[0]}' is ignored"
        if problem:
            left.append(Left(label, problem))
            continue
        width = _width(trace, group, choices)
        if len(width.choices) < 2:
            problem = f"round_to {choices.round_to} leaves one choice of {width.choices[0]}"
            left.append(Left(label, problem))
        else:
            widths[label] = width
            shares[label] = sum(trace.layers[name].macs for name in names) / total
    kernels, bits = {}, {}
    for name, layer in trace.layers.items():
        if name in ignored:
            continue
        share = layer.macs / total
        if choices.kernel and (sizes := _kernel_sizes(layer.module)):
            kernels[f"{name}.kernel"] = sizes
            shares[f"{name}.kernel"] = share
        if choices.bits and not isinstance(layer.module, nn.BatchNorm2d):
            bits[f"{name}.bits"] = Bits(choices.bits, layer.is_signed, choices.quantizer)
            shares[f"{name}.bits"] = share
    skips = {}
    for name in _skippable(trace, left) if choices.skip else ():
        inside = [x for x in trace.layers if x.startswith(f"{name}.")]
        if name not in ignored and not ignored & set(inside):
            skips[f"{name}.skip"] = name
            shares[f"{name}.skip"] = sum(trace.layers[x].macs for x in inside) / total
    return ConversionPlan(widths, kernels, bits, skips, shares, tuple(left))


def _coupling(trace: ChannelTrace, group: ChannelGroup) -> str:
    """Return why channels stay unless those of several layers are chosen together, or ""."""
    if trace.channels.are_added(x for chain in group.chains for x in chain):
        return "they are added to others (residual: true lets them be chosen)"
    if any(len(parts) != 1 for parts in (group.chains, *group.slots.values())):
        return "they are concatenated with others (residual: true lets them be chosen)"
    return ""


def _not_understood(network: nn.Module) -> Iterator[Left]:
    """Yield layers of classes that are not followed, derived ones of PyTorch's own among them."""
    kinds = (_ConvNd, _NormBase, nn.Linear, nn.RNNBase)
    known = ", ".join(kind.__name__ for kind in LAYERS)
    for name, module in network.named_modules():
        if isinstance(module, kinds) and type(module) not in LAYERS:
            kind = type(module).__name__
            yield Left(name or "itself", f"a {kind} is used as it is; {known} can be narrower")


def find_ignored(network: nn.Module, patterns: Sequence[str]) -> set[str]:
    """Return the names of modules that patterns such as ``layer4.*`` match, and of those inside.

    Raises
    ------
    SpaceError
        A pattern matches none.
    """
    names = [name for name, _ in network.named_modules() if name]
    found: set[str] = set()
    for pattern in patterns:
        matched = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
        if not matched:
            first = ", ".join(name for name, _ in network.named_children())
            raise SpaceError(
                f"ignore: {pattern!r} matches no module. The network's first modules are {first}; "
                "a pattern is a dotted name, in which * stands for anything."
            )
        found.update(x for x in names for m in matched if x == m or x.startswith(f"{m}."))
    return found


def groups(trace: ChannelTrace, network: nn.Module) -> Iterator[tuple[str, ChannelGroup]]:
    """Yield channels that belong together, with the label of a choice between their numbers."""
    tied = _tied_layers(network, trace.layers)
    slots: dict[tuple[str, str], ChannelIds] = {}
    for name, layer in trace.layers.items():
        slots[name, "inputs"] = trace.channels.roots(layer.inputs)
        slots[name, "outputs"] = trace.channels.roots(layer.outputs)
    for members in _connected(slots):
        makers = [name for name, side in members if side == "outputs"]
        makers = [x for x in makers if not isinstance(trace.layers[x].module, nn.BatchNorm2d)]
        readers = [name for name, side in members if side == "inputs"]
        readers = [x for x in readers if not isinstance(trace.layers[x].module, nn.BatchNorm2d)]
        if not makers:
            continue
        all_channels = {x for slot in members for x in slots[slot].tolist()}
        group = ChannelGroup([], dict.fromkeys(members, ()), trace.channels.reason(all_channels))
        if not group.problem and FIXED in all_channels:
            group.problem = "they are read together with what stays"
        if not group.problem:
            _find_parts(group, slots)
        if not group.problem and not readers:
            group.problem = "no layer reads them"
        if not group.problem and (own := [x for x, _ in members if x in tied]):
            group.problem = f"the weights of '{own[0]}' are shared with another layer"
        yield f"{makers[0]}.channels", group


def _connected(slots: Mapping[tuple[str, str], ChannelIds]) -> list[list[tuple[str, str]]]:
    """Return slots that have channels in common, directly or through others."""
    groups: dict[int, list[tuple[str, str]]] = {}
    home: dict[int, int] = {}
    for slot, channels in slots.items():
        own = sorted(set(channels.tolist()) - {FIXED})
        known = sorted({home[x] for x in own if x in home})
        number = known[0] if known else len(home) + len(groups)
        merged = groups.setdefault(number, [])
        for other in known[1:]:
            merged.extend(groups.pop(other))
            home.update({x: number for x, at in home.items() if at == other})
        home.update(dict.fromkeys(own, number))
        merged.append(slot)
        if not own:
            groups.pop(number, None)
    order = {slot: place for place, slot in enumerate(slots)}
    return [sorted(members, key=order.__getitem__) for members in groups.values()]


def _find_parts(group: ChannelGroup, slots: Mapping[tuple[str, str], ChannelIds]) -> None:
    """Find the parts of channels that belong together, or say why there are none."""
    channels = {slot: slots[slot].tobytes() for slot in group.slots}
    different = {channels[slot]: slots[slot] for slot in group.slots}
    group.chains = find_chains(list(different.values()))
    sequences = {key: sequence_of(slot, group.chains) for key, slot in different.items()}
    found = {slot: sequences[key] for slot, key in channels.items()}
    group.slots = {slot: sequence for slot, sequence in found.items() if sequence is not None}
    sets = sum(map(len, group.chains))
    is_shuffled = len(group.chains) > 1 and 2 * len(group.chains) > sets
    if is_shuffled or len(group.slots) < len(found):
        group.problem = REARRANGED


def _tied_layers(network: nn.Module, layers: Collection[str]) -> set[str]:
    """Return the names of layers that have a parameter in common with another module."""
    owners: dict[int, set[str]] = {}
    for name, module in network.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(name)
    return {x for names in owners.values() if len(names) > 1 for x in names if x in layers}


def _width(trace: ChannelTrace, group: ChannelGroup, choices: ChoiceSettings) -> Width:
    """Return the numbers of channels that a group can have: of every part the same share."""
    sizes = [len(chain) for chain in group.chains]
    each = [1] * len(sizes)  # channels of a set, in the layers that make them
    for (name, side), sequence in reversed(group.slots.items()):
        if side == "outputs":
            times = len(trace.layers[name].outputs) // sum(sizes[part] for part in sequence)
            each = [times if part in sequence else e for part, e in enumerate(each)]
    rows = {tuple(sizes)}
    for fraction in choices.channels:
        rows.add(
            tuple(
                _rounded(size * times, fraction, choices.round_to, times) // times
                for size, times in zip(sizes, each, strict=True)
            )
        )
    kept = tuple(sorted(rows, reverse=True))
    numbers = [sum(n * times for n, times in zip(row, each, strict=True)) for row in kept]
    makes = [name for name, side in group.slots if side == "outputs"]
    reads = [name for name, side in group.slots if side == "inputs"]
    return Width(tuple(numbers), tuple(makes), tuple(reads), kept, dict(group.slots))


def _rounded(full: int, fraction: float, round_to: int, each: int) -> int:
    """Return a share of channels: a multiple of a number, and of the channels of a set."""
    step = math.lcm(round_to, each)
    return min(max(step, math.floor(full * fraction / step + 0.5) * step), full)


def _kernel_sizes(module: nn.Module) -> tuple[int, ...]:
    """Return the kernel sizes that a depthwise convolution can have, the largest first."""
    if not isinstance(module, nn.Conv2d) or module.groups != module.in_channels:
        return ()
    size = module.kernel_size[0]
    same = tuple(d * (size - 1) // 2 for d in module.dilation)
    is_centred = module.padding == same and len(set(module.kernel_size)) == 1 and size % 2 == 1
    is_plain = len(set(module.dilation)) == 1 and module.groups > 1
    return tuple(range(size, 2, -2)) if size > 3 and is_centred and is_plain else ()


def _skippable(trace: ChannelTrace, left: list[Left]) -> Iterator[str]:
    """Yield the innermost blocks that add their input, and whose output is of its size."""
    residual = [name for name, block in trace.blocks.items() if block.is_residual and name]
    for name in residual:
        if any(other.startswith(f"{name}.") for other in residual):
            continue
        shapes = trace.blocks[name].shapes
        if any(given is None or given != made for given, made in shapes):
            left.append(Left(f"{name}.skip", "its input and its output have other shapes"))
        else:
            yield name


def tensor_slots(module: nn.Module) -> Iterator[tuple[str, Tensor, tuple[str | None, ...]]]:
    """Yield a layer's tensors, and which side's channels each of their dimensions has."""
    if isinstance(module, nn.BatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            if (tensor := getattr(module, name)) is not None:
                yield name, tensor, ("outputs",)
        return
    weight: Tensor = module.weight
    has_groups = isinstance(module, nn.Conv2d) and module.groups > 1
    yield "weight", weight, ("outputs", None if has_groups else "inputs")
    if isinstance(module.bias, Tensor):
        yield "bias", module.bias, ("outputs",)
