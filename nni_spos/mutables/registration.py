"""Our weight-sharing layers as mutation hooks of NNI."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nni.mutable import frozen_context
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.mutables.adoption import grown_tensors, rebuild, take_initial_values
from nni_spos.mutables.boxes import Slices, disjoint
from nni_spos.mutables.convolution import SlicedConv2d
from nni_spos.mutables.sliced import SlicedLinear, SlicedOperation
from nni_spos.mutables.sliced_layers import (
    SlicedConvTranspose2d,
    SlicedGroupNorm,
    SlicedLayerNorm,
    SlicedPReLU,
)
from nni_spos.mutables.sliced_norm import SlicedBatchNorm2d
from nni_spos.mutables.sliced_quantization import (
    SlicedQuantConv2d,
    SlicedQuantLinear,
    SlicedSwitchableBatchNorm2d,
)
from nni_spos.path import Path

SLICED_OPERATIONS: tuple[type[SlicedOperation], ...] = (
    SlicedConv2d,
    SlicedLinear,
    SlicedBatchNorm2d,
    SlicedConvTranspose2d,
    SlicedGroupNorm,
    SlicedLayerNorm,
    SlicedPReLU,
    SlicedQuantConv2d,
    SlicedQuantLinear,
    SlicedSwitchableBatchNorm2d,
)


def mutation_hooks() -> list[Callable[..., Any]]:
    """Return what an NNI strategy that samples paths needs to train a space with our units.

    `nni_spos.SinglePathOneShot` has them; give them to NNI's own strategies as
    ``RandomOneShot(mutation_hooks=mutation_hooks())``. They also take the place of NNI's forms of
    ``MutableConv2d``, ``MutableLinear`` and ``MutableBatchNorm2d``, some of which cannot be frozen.
    Call `share_weights` before, if the space sets initial values of layers with choices: a hook
    sees one layer, and what its larger tensors should begin with is known only to the space.
    """
    return [operation.mutate for operation in SLICED_OPERATIONS]


def sliced_operations(model: nn.Module) -> Iterator[tuple[str, SlicedOperation]]:
    """Yield the dotted names of layers with choices as arguments, and the layers."""
    for name, module in model.named_modules():
        if isinstance(module, SlicedOperation):
            yield name, module


class ActiveSlices:
    """Which part of each weight the current path of a supernet uses, or the paths of a step.

    Parameters
    ----------
    supernet
        A mutated model space.
    """

    def __init__(self, supernet: nn.Module):
        self._operations = [operation for _, operation in sliced_operations(supernet)]

    def __call__(self) -> Mapping[nn.Parameter, list[Slices]]:
        """Return the slices of parameters that have a gradient and of which some is not used.

        They are one, unless the paths of a step use different parts of a parameter, and do not
        overlap.
        """
        active: dict[nn.Parameter, list[Slices]] = {}
        for operation in self._operations:
            for name, parts in _used(operation).items():
                if all(parts):
                    tensor = operation.get_tensor(name)
                    if isinstance(tensor, nn.Parameter) and tensor.grad is not None:
                        active[tensor] = disjoint(parts, tensor.shape) if len(parts) > 1 else parts
        return active

    def note(self) -> None:
        """Begin a step of several paths: what each of them uses is kept until `forget`."""
        for operation in self._operations:
            operation.noted = []

    def forget(self) -> None:
        """Let what counts be the current path again."""
        for operation in self._operations:
            operation.noted = None


def _used(operation: SlicedOperation) -> Mapping[str, list[Slices]]:
    """Return the slices of a layer's tensors that a step used."""
    if operation.noted is None:
        return {name: [slices] for name, slices in operation.part.slices.items()}
    parts = list({id(part): part for part in operation.noted}.values())
    names = parts[0].slices if parts else ()
    return {name: [part.slices[name] for part in parts] for name in names}


def share_weights(space: ModelSpace) -> ModelSpace:
    """Make every layer with choices as arguments its weight-sharing form.

    In place: whoever holds a layer holds the new form, and hooks, ties, loaded weights and
    ``requires_grad`` stay. Tensors that have to grow get the values that the space's constructor
    draws for the largest choices. Other units stay as they are; a strategy's ``mutate_model`` does
    this as well, and more.

    Raises
    ------
    SpaceError
        A tensor that has to grow was changed after the space was built, or is computed from
        others.
    """
    slice_layers(space)
    if any(grown_tensors(space)):
        anew, largest = (rebuild(space, frozen_context(path)) for path in ({}, _largest(space)))
        take_initial_values(space, anew, largest)
    return space


def slice_layers(space: ModelSpace) -> ModelSpace:
    """Do what `share_weights` does, and leave the values of tensors that grow to chance."""
    memo: dict[Any, Any] = {}
    for name, module in list(space.named_modules()):
        with frozen_context():  # so that NNI takes no new unit for one of an unknown space
            any(operation.mutate(module, name, memo, {}) for operation in SLICED_OPERATIONS)
    return space


CHANNEL_ARGUMENTS = (
    "in_channels",
    "out_channels",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "num_parameters",
)


def channel_labels(supernet: nn.Module) -> tuple[str, ...]:
    """Return the labels of all choices between numbers of channels in a mutated model space."""
    labels: dict[str, None] = {}
    for _, operation in sliced_operations(supernet):
        for name in CHANNEL_ARGUMENTS:
            if name in operation.mutable_arguments:
                for label, mutable in operation.mutable_arguments[name].simplify().items():
                    if all(type(value) in (int, float) for value in mutable.values):
                        labels[str.__str__(label)] = None
    return tuple(labels)


def _largest(space: ModelSpace) -> Path:
    """Return the largest choices of the layers of a space."""
    largest = {}
    for _, operation in sliced_operations(space):
        for label, mutable in operation.simplify().items():
            values = list(mutable.values)
            is_number = all(isinstance(value, int | float) for value in values)
            largest[label] = max(values) if is_number else values[0]
    return largest
