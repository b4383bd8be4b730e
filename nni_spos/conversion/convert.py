"""From a trained network to a model space whose largest path is that network."""

from __future__ import annotations

import contextlib
import copy
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nni_spos.conversion.importance import score_by_effects, score_channels, sort_channels
from nni_spos.conversion.masking import masked
from nni_spos.conversion.plain import make_plain
from nni_spos.conversion.plan import REARRANGED, Plan, make_plan
from nni_spos.conversion.refusals import refuse
from nni_spos.conversion.space import ConvertedSpace
from nni_spos.conversion.taylor import Loss, weight_effects
from nni_spos.conversion.tracing import LAYERS, Trace, call, run, tensors
from nni_spos.errors import SpaceError
from nni_spos.mutables.quantization import pair_name
from nni_spos.mutables.registration import share_weights
from nni_spos.path import Choice
from nni_spos.recipe.conversion_settings import BY_BATCHES, ChoiceSettings, as_plain
from nni_spos.recipe.settings import read_settings
from nni_spos.spaces.registry import construction

TORCH = FilePath(torch.__file__).parent
HERE = FilePath(__file__).parent
TOLERANCE = 1e-5
"""Largest difference of outputs, as a share of the largest output, in single precision."""


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
) -> tuple[nn.Module, Plan]:
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


def build(network: nn.Module, plan: Plan, path: Mapping[str, Choice] | None = None) -> Any:
    """Build the space of a plan, or the network of one of its paths."""
    with construction(path), torch.random.fork_rng(devices=[]):
        return ConvertedSpace(network, plan)


def watch(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Trace, list[Tensor]]:
    """Return what runs of a network show, and its outputs.

    Its layers of derived classes become plain ones, where these compute the same.

    Raises
    ------
    SpaceError
        It does not run on the inputs, changes its buffers, or returns no tensor.
    """
    trace = Trace()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with _quiet():
        try:
            make_plain(network, inputs)
            outputs = list(tensors(run(trace, network, inputs)))
        except Exception as problem:
            raise SpaceError(
                f"convert: the network does not run on the example inputs ({_shapes(inputs)}): "
                f"{_reason(problem)}"
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


def _watch_training(trace: Trace, network: nn.Module, inputs: tuple[Any, ...]) -> Trace:
    """Return what a run in training mode shows beside a trace."""
    both = Trace(trace.channels, dict(trace.layers), dict(trace.blocks))
    with _quiet(), torch.random.fork_rng(devices=[]):
        try:
            run(both, copy.deepcopy(network).train(), twice(inputs))
        except Exception as problem:  # the code of others
            trace.problem = _reason(problem)
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


def keep_what_runs(
    given: nn.Module,
    network: nn.Module,
    plan: Plan,
    inputs: tuple[Any, ...],
    expected: list[Tensor],
) -> Plan:
    """Return a plan of which the largest and the smallest path were seen to run as they should.

    Parameters
    ----------
    given
        The network as it was given.
    network
        A copy, its channels sorted.
    plan
        What of it may be chosen.
    inputs, expected
        Of the given network, and what it returns for them.

    Raises
    ------
    SpaceError
        The largest path is not the network that was given, or no unit is left.
    """
    with _quiet():
        if problem := _problem(network, plan, {}, inputs, expected, is_same=True):
            if not all(map(_agree, tensors(call(given, inputs)), expected)):
                raise SpaceError(
                    "convert: two runs of the network on the same inputs differ, so nothing can be "
                    "verified. Take what is random out of its evaluation mode."
                )
            if not _agrees_in_double(given, network, plan, largest(plan), inputs):
                raise SpaceError(f"convert: the largest path is another network: {problem}")
        if _problem(network, plan, smallest(plan), inputs, expected):
            lost = {}
            for label in plan.labels:
                alone = {label: smallest(plan)[label]}
                if problem := _problem(network, plan, alone, inputs, expected):
                    lost[label] = problem
            plan = plan.without(lost)
            if plan.labels and (
                problem := _problem(network, plan, smallest(plan), inputs, expected)
            ):
                raise SpaceError(
                    f"convert: the smallest path does not run: {problem} Let `ignore` name a part."
                )
        plan = plan.without(_misplaced(network, plan, inputs))
    if not plan.labels:
        raise SpaceError(nothing_to_choose(plan))
    return plan


def _misplaced(network: nn.Module, plan: Plan, inputs: tuple[Any, ...]) -> dict[str, str]:
    """Return the widths of concatenated parts whose channels are not where they should be.

    By label, with the reason. Code can look for a part where it was in the given network.
    """
    parted = {label: width for label, width in plan.widths.items() if width.is_parted}
    most = max((len(width.choices) for width in parted.values()), default=1)
    together = [
        {label: width.choices[min(i, len(width.choices) - 1)] for label, width in parted.items()}
        for i in range(1, most)
    ]
    if all(_is_masked_network(network, plan, path, inputs) for path in together):
        return {}
    return {
        label: REARRANGED
        for label, width in parted.items()
        if not all(
            _is_masked_network(network, plan, {label: choice}, inputs)
            for choice in width.choices[1:]
        )
    }


def _is_masked_network(
    network: nn.Module, plan: Plan, path: Mapping[str, Choice], inputs: tuple[Any, ...]
) -> bool:
    """Whether the network of a path computes what the whole one does with the rest masked."""
    whole = masked(network, plan, path)
    try:
        expected = list(tensors(call(whole, inputs)))
    except Exception:  # the code of others
        return False
    path = {**largest(plan), **path}
    if not _problem(network, plan, path, inputs, expected, is_same=True):
        return True
    return _agrees_in_double(whole, network, plan, path, inputs)


def _agrees_in_double(
    given: nn.Module,
    network: nn.Module,
    plan: Plan,
    path: Mapping[str, Choice],
    inputs: tuple[Any, ...],
) -> bool:
    """Whether a difference was rounding: sums in another order, of values that nearly cancel."""

    def double(value: Any) -> Any:
        return value.double() if value.is_floating_point() else value

    doubled = tree_map_only(Tensor, double, inputs)
    try:
        subnet = build(network, plan, path).double()
        outputs = [call(x, doubled) for x in (subnet, copy.deepcopy(given).double())]
    except Exception:  # the code of others may be for one type alone
        return False
    return all(map(_agree, *map(tensors, outputs)))


def _problem(
    network: nn.Module,
    plan: Plan,
    path: Mapping[str, Choice],
    inputs: tuple[Any, ...],
    expected: list[Tensor],
    *,
    is_same: bool = False,
) -> str:
    """Return why the network of a path is not what it should be, or ""."""
    try:
        subnet = build(network, plan, {**largest(plan), **path})
        outputs = list(tensors(call(subnet, inputs)))
    except Exception as problem:
        return f"it does not run: {_reason(problem)}"
    shapes = [tuple(x.shape) for x in outputs]
    if shapes != [tuple(x.shape) for x in expected]:
        return f"it returns tensors of the shapes {shapes}."
    if is_same and not all(map(_agree, outputs, expected)):
        return "its outputs differ from those of the network."
    return ""


def largest(plan: Plan) -> dict[str, Choice]:
    """Return the path that is the given network."""
    return {label: choices[0] for label, choices in choices_of(plan)}


def smallest(plan: Plan) -> dict[str, Choice]:
    """Return the path with the last choices."""
    return {label: choices[-1] for label, choices in choices_of(plan)}


def choices_of(plan: Plan) -> Iterator[tuple[str, list[Choice]]]:
    """Yield labels and their choices, the largest first."""
    for label, width in plan.widths.items():
        yield label, [*width.choices]
    for label, sizes in plan.kernels.items():
        yield label, [*sizes]
    for label, bits in plan.bits.items():
        yield label, [pair_name(*pair) for pair in bits.pairs]
    for label in plan.skips:
        yield label, ["block", "identity"]


def _agree(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs are the same but for rounding."""
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    scale = float(other.abs().max()) if other.numel() else 0.0
    return bool(torch.allclose(one, other, rtol=0, atol=TOLERANCE * max(scale, 1e-30)))


def nothing_to_choose(plan: Plan) -> str:
    """Return why no part of a network can be chosen."""
    reasons = [f"'{part}': {reason}" for part, reason in plan.left[:3]]
    text = "; ".join(reasons) or "it has no convolution or linear layer that ran"
    advice = ""
    if plan.left:
        advice = f" To leave a part out: ignore: [{plan.left[0].part.rsplit('.', 1)[0]!r}]."
    return f"convert: nothing in the network can be chosen: {text}.{advice}"


def _shapes(inputs: tuple[Any, ...]) -> str:
    return ", ".join(str(tuple(x.shape)) for x in tensors(inputs)) or "no tensor"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of networks that are run once, to be looked at
        yield


def _reason(problem: Exception) -> str:
    """Return in one line what a network raised, and the last line of code that is not PyTorch's."""
    text = " ".join(str(problem).split())
    frames = traceback.extract_tb(problem.__traceback__)
    own = [f for f in frames if not FilePath(f.filename).is_relative_to(TORCH)]
    own = [f for f in own if not FilePath(f.filename).is_relative_to(HERE)]
    where = f" ({FilePath(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(problem).__name__}: {text}{where}"
