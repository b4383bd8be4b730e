"""From a trained network to a model space whose largest path is that network."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nni_spos.conversion.importance import score_by_effects, score_channels, sort_channels
from nni_spos.conversion.plain import make_plain
from nni_spos.conversion.plan import ConversionPlan, make_plan
from nni_spos.conversion.refusals import nothing_to_choose, reason_of, refuse
from nni_spos.conversion.space import ConvertedSpace, build
from nni_spos.conversion.taylor import Loss, weight_effects
from nni_spos.conversion.tracing import LAYERS, ChannelTrace, quiet, run, tensors
from nni_spos.conversion.verification import keep_what_runs
from nni_spos.errors import SpaceError
from nni_spos.mutables.registration import share_weights
from nni_spos.recipe.conversion_settings import BY_BATCHES, ChoiceSettings, as_plain
from nni_spos.recipe.settings import read_settings


def convert(
    network: nn.Module,
    example_inputs: Any,
    choices: Mapping[str, Any] | ChoiceSettings | None = None,
    *,
    ignore: Sequence[str] = (),
    round_to: int | None = None,
    calibration: Iterable[Any] | None = None,
    loss: Loss = nn.functional.cross_entropy,
) -> ConvertedSpace:
    """Return a model space of narrower, shorter and coarser forms of a network.

    The network is run on the example inputs, and watched: channels that a layer makes and others
    read may be fewer, residual blocks may be left out, large depthwise kernels may be smaller. What
    is not understood stays as it is; ``print(space)`` lists it with the reasons.

    Parameters
    ----------
    network
        Trained, in evaluation mode. It is not changed.
    example_inputs
        A tensor, or a tuple of the network's positional arguments, whose last element is a dict for
        keyword arguments. On the network's device, batch first.
    choices
        What may be chosen: the keys ``channels`` (shares of a layer's channels, by default
        [0.25, 0.5, 0.75, 1.0]), ``bits`` (bit widths such as [8, 32] or pairs of them, by default
        none), ``skip`` and ``kernel`` (by default true), ``residual`` (also channels that are
        added or concatenated, by default false), ``round_to`` and ``importance`` (``l2``,
        ``batchnorm`` or ``taylor``).
    ignore
        Dotted names of modules that stay as they are, in which * stands for anything.
    round_to
        Numbers of channels are multiples of this; 8 unless `choices` says otherwise.
    calibration
        Batches of (inputs, targets), for ``importance: taylor``: channels are sorted by how much
        the loss would change without them.
    loss
        Of the network's outputs and the targets of such a batch.

    Returns
    -------
    A `ModelSpace`. Its first choices, which are the largest, are the given network with its
    weights; channels are sorted, so that narrow paths begin with those that matter most.

    Raises
    ------
    SpaceError
        The network cannot be converted (it is in training mode, its inputs do not fit, it has hooks
        or parametrizations, its forward pass changes its buffers ...), or nothing in it can be
        chosen.
    RecipeError
        A choice is not allowed.
    """
    network, plan = prepare(
        network,
        example_inputs,
        choices,
        ignore=ignore,
        round_to=round_to,
        calibration=calibration,
        loss=loss,
    )
    space: ConvertedSpace = build(network, plan)
    with _NoRandomValues():
        share_weights(space)  # so that every network that is taken out of it has its weights
    return space


def prepare(
    network: nn.Module,
    example_inputs: Any,
    choices: Mapping[str, Any] | ChoiceSettings | None = None,
    *,
    ignore: Sequence[str] = (),
    round_to: int | None = None,
    calibration: Iterable[Any] | None = None,
    loss: Loss = nn.functional.cross_entropy,
) -> tuple[nn.Module, ConversionPlan]:
    """Return a copy of a network whose channels are sorted, and what of it may be chosen.

    Parameters and errors are those of `convert`.
    """
    wanted = choices
    if not isinstance(wanted, ChoiceSettings):
        wanted = read_settings(ChoiceSettings, choices, "choices")
    if round_to is not None:
        wanted = read_settings(
            ChoiceSettings, {**as_plain(wanted), "round_to": round_to}, "choices"
        )
    if (wanted.importance == BY_BATCHES) != (calibration is not None):
        raise SpaceError(
            "convert: importance taylor and calibration, batches of (inputs, targets), go together."
        )
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    refuse(network, inputs)
    given, network = network, copy.deepcopy(network)
    trace, outputs = watch(network, inputs)
    plan = make_plan(trace, network, wanted, ignore)
    if not plan.labels:
        raise SpaceError(nothing_to_choose(plan))
    if calibration is None:
        scores = score_channels(network, plan, wanted.importance)
    else:
        scores = score_by_effects(network, plan, weight_effects(network, calibration, loss))
    sort_channels(network, plan, scores)
    return network, keep_what_runs(given, network, plan, inputs, outputs)


def watch(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[ChannelTrace, list[Tensor]]:
    """Return what runs of a network show, and its outputs.

    Its layers of derived classes become plain ones, where these compute the same.

    Raises
    ------
    SpaceError
        It does not run on the inputs, changes its buffers, or returns no tensor.
    """
    trace = ChannelTrace()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with quiet():
        try:
            make_plain(network, inputs)
            outputs = list(tensors(run(trace, network, inputs)))
        except Exception as problem:
            raise SpaceError(
                f"convert: the network does not run on the example inputs ({_shapes(inputs)}): "
                f"{reason_of(problem)}"
            ) from problem
    for name, buffer in network.named_buffers():
        if name in before and not torch.equal(buffer, before[name]):
            raise SpaceError(
                f"convert: a run changes the buffer '{name}' of the network, so that its results "
                "depend on what it has seen. Let its forward method leave it alone in evaluation "
                "mode."
            )
    if not outputs:
        raise SpaceError("convert: the network returns no tensor.")
    ran = {layer.module for layer in trace.layers.values()}
    if any(isinstance(m, LAYERS) and m not in ran for m in network.modules()):
        # Heads that are there in training only read channels as well.
        return _watch_training(trace, network, inputs), outputs
    return trace, outputs


def _watch_training(
    trace: ChannelTrace, network: nn.Module, inputs: tuple[Any, ...]
) -> ChannelTrace:
    """Return what a run in training mode shows beside a trace."""
    both = ChannelTrace(trace.channels, dict(trace.layers), dict(trace.blocks))
    with quiet(), torch.random.fork_rng(devices=[]):
        try:
            run(both, copy.deepcopy(network).train(), twice(inputs))
        except Exception as problem:  # the code of others
            trace.problem = reason_of(problem)
            return trace
    originals = dict(network.named_modules())
    for name, layer in both.layers.items():
        layer.module = originals[name]
    return both


def twice(inputs: Any) -> Any:
    """Return inputs with every example twice: BatchNorm cannot train on one value a channel."""
    if isinstance(inputs, Tensor):
        return torch.cat([inputs, inputs]) if inputs.dim() else inputs
    if isinstance(inputs, tuple | list):
        return type(inputs)(map(twice, inputs))
    if isinstance(inputs, dict):
        return {key: twice(value) for key, value in inputs.items()}
    return inputs


class _NoRandomValues(TorchFunctionMode):
    """New layers that take over weights need no random ones, which take as long as a copy."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _shapes(inputs: tuple[Any, ...]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in tensors(inputs)) or "no tensor"
