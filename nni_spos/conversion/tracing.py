"""Watch a network run, and follow its channels from layers that make them to those that read them.

Every tensor of the run has a shadow: whole numbers that say which channel is at which place. What
moves values about (a view, a permutation, a slice) is done to the shadow as well, by PyTorch
itself, so control flow, functional calls and any arrangement are followed as they are. An operation
without a rule leaves the channels that reach it as they are, and says so.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakTensorKeyDictionary

from nni_spos.conversion.channels import FIXED, ChannelIds, ChannelSets
from nni_spos.conversion.rules import follow
from nni_spos.conversion.shadows import Shadow


@dataclass
class TracedLayer:
    """A layer whose numbers of channels can be others.

    Parameters
    ----------
    module
        A convolution, a linear layer or a BatchNorm.
    inputs, outputs
        The channels that it reads and makes; of a BatchNorm both are the same.
    is_signed
        Whether what it reads can be negative.
    macs
        Multiply-adds of one run with one example.
    """

    module: nn.Module
    inputs: ChannelIds
    outputs: ChannelIds
    is_signed: bool = False
    macs: int = 0


@dataclass
class TracedBlock:
    """A module that adds its input to what it computes.

    Parameters
    ----------
    calls
        How often it ran.
    is_residual
        Whether it adds its input to something.
    shapes
        Of its input and output, in every call.
    """

    calls: int = 0
    is_residual: bool = False
    shapes: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass
class ChannelTrace:
    """What the runs of a network have shown.

    Parameters
    ----------
    channels
        Which channels belong together, and which stay.
    layers
        By dotted name, in the order of their first run.
    blocks
        Modules that are no layers, by dotted name.
    problem
        Why the network does not run in training mode; "" if it does.
    """

    channels: ChannelSets = field(default_factory=ChannelSets)
    layers: dict[str, TracedLayer] = field(default_factory=dict)
    blocks: dict[str, TracedBlock] = field(default_factory=dict)
    problem: str = ""


LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)


def run(trace: ChannelTrace, network: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Run a network once, note what it shows, and return what it returns.

    Raises what the network raises.

    Parameters
    ----------
    trace
        It may have seen other runs of the network, for instance in training mode.
    network
        In the mode that it is to run in; BatchNorm's statistics change in training mode.
    inputs
        Its positional arguments; a dict is its keyword arguments if it is the last one.
    """
    watcher = _ChannelWatcher(trace, network)
    with watcher.watching():
        outputs = call(network, inputs)
    for tensor in tensors(outputs):
        if (shadow := watcher.shadows.get(tensor)) is not None:
            trace.channels.fix(shadow.channels.numpy(), "they are an output of the network")
    return outputs


def call(network: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Return what a network returns, without gradients; inputs are as in `run`."""
    named: Mapping[str, Any] = {}
    if inputs and isinstance(inputs[-1], dict):
        inputs, named = inputs[:-1], inputs[-1]
    with torch.no_grad():
        return network(*inputs, **named)


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value, in dataclasses and objects that hold attributes as well."""
    for leaf in tree_iter(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module | type):
            yield from (x for x in vars(leaf).values() if isinstance(x, Tensor))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let a network that is run once, to be looked at, warn of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _ChannelWatcher(TorchDispatchMode):
    """Sees every operation that is not inside a layer, and every module's call."""

    def __init__(self, trace: ChannelTrace, network: nn.Module):
        super().__init__()
        self.channels = trace.channels
        self.shadows: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._trace = trace
        self._names = {module: name for name, module in network.named_modules()}
        self._stack: list[tuple[nn.Module, Shadow | None]] = []
        self._inside = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        before = hooks.register_module_forward_pre_hook(self._enter)
        after = hooks.register_module_forward_hook(self._leave, always_call=True)
        try:
            with self:
                yield
        finally:
            before.remove()
            after.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if not self._inside:
            follow(self, func, args, kwargs or {}, outputs)
        return outputs

    def place(self) -> str:
        """Return the name of the module that runs and the line of its code, for messages."""
        if not self._stack:
            return "the network"
        module = self._stack[-1][0]
        code = getattr(type(module).forward, "__code__", None)
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code is not code:
            frame = frame.f_back
        line = f", {FilePath(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""
        name = self._names.get(module)
        kind = f"{type(module).__name__}{line}"
        return f"'{name}' ({kind})" if name else kind

    def add(self, terms: list[Shadow]) -> None:
        """Note a sum: the module that runs may be one that adds its input to what it computes."""
        if not self._stack:
            return
        module, given = self._stack[-1]
        if given is not None and module in self._names and any(given.is_same(x) for x in terms):
            self._trace.blocks.setdefault(self._names[module], TracedBlock()).is_residual = True

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        first = args[0] if len(args) == 1 and isinstance(args[0], Tensor) else None
        self._stack.append((module, self.shadows.get(first) if first is not None else None))
        if self._is_layer(module):
            self._inside += 1

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not self._stack:
            return
        self._stack.pop()
        name = self._names.get(module)
        if self._is_layer(module):
            self._inside -= 1
            if not self._inside and isinstance(output, Tensor):
                self._follow_layer(str(name), module, args, output)
        elif name:
            block = self._trace.blocks.setdefault(name, TracedBlock())
            block.calls += 1
            given = args[0].shape if len(args) == 1 and isinstance(args[0], Tensor) else None
            block.shapes.append((given, output.shape if isinstance(output, Tensor) else None))

    def _is_layer(self, module: nn.Module) -> bool:
        return type(module) in LAYERS and module in self._names

    def _follow_layer(
        self, name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> None:
        dim = -1 if isinstance(module, nn.Linear) else 1
        if not args:  # called by keyword
            number = getattr(
                module, "in_channels", getattr(module, "in_features", output.shape[dim])
            )
            shadow = Shadow.fixed(output.dim(), dim, number)
        else:
            shadow = self.shadows.get(args[0]) or Shadow.fixed(
                args[0].dim(), dim, args[0].shape[dim]
            )
        found = shadow.vector(dim)
        if found is None:
            self.channels.fix(shadow.channels.numpy(), f"'{name}' reads others at other places")
            found = np.full(args[0].shape[dim], FIXED)
        elif len(found) == 1:  # the same channel everywhere along it
            found = np.repeat(found, args[0].shape[dim])
        layer = self._trace.layers.get(name)
        if layer is None:
            layer = self._trace.layers[name] = self._new_layer(module, found)
        else:
            self.channels.join(layer.inputs, found, f"'{name}' reads what stays as well")
        layer.is_signed |= shadow.is_signed
        layer.macs = max(layer.macs, _multiply_adds(module, output))
        self.shadows[output] = Shadow.of_vector(layer.outputs, output.dim(), dim, is_signed=True)

    def _new_layer(self, module: nn.Module, found: ChannelIds) -> TracedLayer:
        if isinstance(module, nn.BatchNorm2d):
            return TracedLayer(module, found, found)
        size: Any = module.weight.shape[0] if isinstance(module.weight, Tensor) else 0
        made = self.channels.new(size)
        groups = module.groups if isinstance(module, nn.Conv2d) else 1
        if groups > 1:
            # The channels of a group stay together, on both sides.
            for side in (found, made):
                rows = side.reshape(groups, -1)
                self.channels.join(rows, made.reshape(groups, -1)[:, :1], "its group has others")
        return TracedLayer(module, found, made)


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    """Return the multiply-adds of a layer for one example; a BatchNorm has none."""
    weight = module.weight
    if isinstance(module, nn.BatchNorm2d) or not isinstance(weight, Tensor):
        return 0
    return output[:1].numel() * weight[0].numel()
