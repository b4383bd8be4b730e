"""From layer costs with conditions to cost tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.cost_table import Costs, CostTable, Factor
from nni_spos.errors import CostError
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import PathSpace
from nni_spos.profilers.bits import count_bitops
from nni_spos.profilers.macs import count_macs, is_registered
from nni_spos.profilers.parameters import count_parameters
from nni_spos.profilers.trace import Condition, LayerCall, Trace, trace_space

REGISTER = "nni_spos.profilers.register_macs"


def build_costs(space: ModelSpace, input_shape: Sequence[int]) -> Costs:
    """Build the tables of every analytic metric: ``flops`` and ``params``, and those of bits.

    Parameters
    ----------
    space
        A model space in the form whose subnets are to be deployed (BatchNorm with affine
        parameters); it is not changed.
    input_shape
        Of one image: (channels, height, width).

    Returns
    -------
    Tables by metric: ``flops`` are multiply-adds of convolutions and linear layers for one
    image (one multiply-add = 1 FLOP), ``params`` numbers of parameters. A space with quantized
    layers also has ``bitops`` (see `count_bitops`) and ``size_bytes`` (of all parameters at
    their bit widths).

    Raises
    ------
    CostError
        A layer has no formula, computes outside of layers what would go uncounted, or costs
        what choices elsewhere decide.
    """
    path_space = PathSpace.from_model_space(space)
    trace = trace_space(space, input_shape)
    macs = [(call, _macs(call)) for call in trace.calls]
    for call, cost in macs:
        if call.varies and cost:
            raise CostError(
                f"layer '{call.name}' ({type(call.module).__name__}): its multiply-adds depend on "
                "choices elsewhere. Make the numbers that it depends on choices of its own, with "
                "the classes of nni_spos.mutables."
            )
    _check_complete(trace)
    parameters = list(count_parameters(trace.space))
    costs = {
        "flops": [(call.condition, cost) for call, cost in macs],
        "params": [(item.condition, item.number) for item in parameters],
    }
    if any(isinstance(call.module, Quantized) for call in trace.calls):
        costs["bitops"] = [(x.condition, count_bitops(x.module, cost)) for x, cost in macs]
        costs["size_bytes"] = [(item.condition, item.size_bytes) for item in parameters]
    return {metric: tabulate(metric, path_space, items) for metric, items in costs.items()}


def tabulate(metric: str, space: PathSpace, costs: Iterable[tuple[Condition, int]]) -> CostTable:
    """Sum whole-number costs, each with the choices it depends on, into a table.

    Costs under the same labels form one factor; a path pays an entry when it makes all of the
    entry's choices.
    """
    constant = 0
    tables: dict[tuple[str, ...], np.ndarray] = {}
    positions = {label: {c: i for i, c in enumerate(choices)} for label, choices in space.items()}
    shapes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for condition, cost in costs:
        if not condition:
            constant += cost
            continue
        ordered = sorted(condition, key=lambda pair: space.labels.index(pair[0]))
        labels = tuple(label for label, _ in ordered)
        if labels not in tables:
            shapes[labels] = [len(space[label]) for label in labels]
            tables[labels] = np.zeros(shapes[labels], dtype=np.int64)
        tables[labels][tuple(positions[label][choice] for label, choice in ordered)] += cost
    return CostTable(metric, space, constant, [Factor(*item) for item in tables.items()])


def _macs(call: LayerCall) -> int:
    return count_macs(call.module, call.input_shape, call.output_shape, call.name)


def _check_complete(trace: Trace) -> None:
    """Compare with PyTorch's own count of the same run, which also sees functional calls.

    A formula that was registered is taken at its word, unless it says nothing: a network may be
    deployed with fewer multiply-adds than it is trained with. Raises CostError.
    """
    missed = trace.outside.macs
    names = set(trace.outside.uncounted)
    for call in trace.counted_calls:
        macs, seen = _macs(call), call.products
        if not is_registered(call.module):
            names |= seen.uncounted
            if seen.macs < macs:
                raise CostError(
                    f"layer '{call.name}' ({type(call.module).__name__}): does {seen.macs} "
                    f"multiply-adds, and the formula for its base class gives {macs}. "
                    f"Give it one of its own with {REGISTER}."
                )
            missed += seen.macs - macs
        elif not macs:
            missed += seen.macs
    advice = f"Put them into an nn.Module and give its formula with {REGISTER}."
    if missed:
        raise CostError(
            f"the space does {missed} multiply-adds outside of layers (such as torch.matmul, "
            "functional convolutions, or layers that a kept function or bound method holds), which "
            f"cannot be counted by choice. {advice}"
        )
    if names:
        raise CostError(
            f"the space calls {', '.join(sorted(names))} outside of layers, whose multiply-adds "
            f"cannot be counted. {advice}"
        )
