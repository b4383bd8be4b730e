"""Run every choice of a model space once, without data, and record the layers' shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableModule, Repeat
from torch import Tensor, nn

from nni_spos.errors import CostError
from nni_spos.mutables import SlicedOperation, sliced_operations
from nni_spos.mutables.registration import slice_layers
from nni_spos.profilers.copying import copy_observable
from nni_spos.profilers.dry_run import run_dry
from nni_spos.profilers.expansion import Builder, assignments_of, expand_calls, use_stand_in
from nni_spos.profilers.recorder import Condition, LayerCall, Recorder

__all__ = ["Condition", "LayerCall", "Trace", "layer_choices", "trace_network", "trace_space"]


@dataclass(frozen=True)
class Trace:
    """Every layer call of a space.

    Parameters
    ----------
    calls
        In the order in which they were made; of layers whose arguments are choices, one for
        every combination of these.
    bypassed
        Names of the candidates of units that were called, but not by their unit.
    space
        The copy that was run: on the meta device unless values were needed, layers with choices
        as arguments in their weight-sharing form.
    """

    calls: tuple[LayerCall, ...]
    bypassed: tuple[str, ...]
    space: ModelSpace


NOT_SHARED = (
    "nni_spos shares no weights of it among its choices, and so cannot count it. Layers that can "
    "have choices are in nni_spos.mutables; or choose among whole modules with a LayerChoice."
)


def layer_choices(
    space: ModelSpace, problem: str, also: tuple[type[MutableModule], ...] = ()
) -> list[LayerChoice]:
    """Return all LayerChoice units of a space.

    Parameters
    ----------
    space
        A model space, mutated to a supernet or not.
    problem
        What other mutables are, for the message; layers that share weights among the choices of
        their arguments are none.
    also
        Classes of others that may be there.

    Raises
    ------
    CostError
        There is another mutable.
    """
    units = []
    for name, module in space.named_modules():
        if isinstance(module, LayerChoice):
            units.append(module)
        elif isinstance(module, (SlicedOperation, *also)):
            continue
        elif isinstance(module, MutableModule) and module.mutables:
            raise CostError(f"'{name or 'space'}' ({type(module).__name__}): {problem}")
    return units


def trace_space(space: ModelSpace, input_shape: Sequence[int]) -> Trace:
    """Record every layer call of every choice of a space.

    A space that asks for values of its tensors, or makes tensors on the CPU, is run there with
    several random images, and must call the same layers for all of them.

    Parameters
    ----------
    space
        A model space, mutated to a supernet or not; it is copied, not changed.
    input_shape
        Of one image: (channels, height, width).

    Raises
    ------
    CostError
        A module's choices cannot be traced, candidates of a unit differ in their output, the
        size of a layer's input depends on choices that are not its own, the layers that are
        called depend on the image, or the space does not run on the images.
    """
    first, *others = run_dry(lambda device: _prepare(space, device), input_shape)
    _check_same(*(trace.calls for trace in (first, *others)))
    return first


def trace_network(
    build: Callable[[str], nn.Module], input_shape: Sequence[int]
) -> tuple[LayerCall, ...]:
    """Return the layer calls of a network without choices.

    Parameters
    ----------
    build
        Called with a device, returns a network there that nobody else has.
    input_shape
        Of one image: (channels, height, width).

    Raises
    ------
    CostError
        The layers that are called depend on the image, or the network does not run on the images.
    """
    first, *others = run_dry(lambda device: _prepare_network(build(device), device), input_shape)
    _check_same(first, *others)
    return tuple(first)


def _check_same(*runs: Sequence[LayerCall]) -> None:
    """Refuse calls that depend on the image. Raises CostError."""
    seen = {
        tuple((x.name, x.condition, x.input_shape, x.output_shape, x.products) for x in calls)
        for calls in runs
    }
    if len(seen) > 1:
        raise CostError(
            "the space calls other layers, or layers on other sizes, for images of other values, "
            "so that its costs cannot be counted. Compute the same for every image."
        )


def _prepare_network(network: nn.Module, device: str) -> Callable[[Tensor], list[LayerCall]]:
    for module in network.eval().modules():
        use_stand_in(module, device)
    recorder = Recorder(network)
    return lambda image: recorder.record(network, image.clone())


def _prepare(space: ModelSpace, device: str) -> Callable[[Tensor], Trace]:
    """Return what traces a copy of a space."""
    copied = copy_observable(space, device)
    with torch.device(device):
        copied = slice_layers(copied).eval()
    units = layer_choices(copied, NOT_SHARED, also=(Repeat,))
    repeats = [module for module in copied.modules() if isinstance(module, Repeat)]
    for module in copied.modules():
        use_stand_in(module, device)
    recorder = Recorder(copied, units, repeats)
    return lambda image: _trace(copied, recorder, image)


def _trace(space: ModelSpace, recorder: Recorder, image: Tensor) -> Trace:
    operations = dict(sliced_operations(space))
    assignments = assignments_of(operations.values())
    runs: list[list[LayerCall]] = []
    for assignment in assignments:
        for operation in operations.values():
            operation.resample(assignment)
        recorder.assignment = assignment
        runs.append(recorder.record(space, image.clone()))  # which it may change in place
    if len({tuple(call.name for call in run) for run in runs}) > 1:
        raise CostError("the space calls other layers for other choices, which cannot be counted.")
    calls: list[LayerCall] = []
    build = Builder()
    for observed in zip(*runs, strict=True):
        own = operations.get(observed[0].name)
        if own is None:
            shapes = {(call.input_shape, call.output_shape) for call in observed}
            products_vary = len({call.products for call in observed}) > 1
            varies = products_vary or len(shapes) > 1
            calls.append(
                dataclasses.replace(observed[0], varies=varies, products_vary=products_vary)
            )
        else:
            calls += expand_calls(own, observed, assignments, build)
    return Trace(tuple(calls), tuple(recorder.bypassed), space)
