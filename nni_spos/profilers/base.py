"""From layer costs with conditions to cost tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from nni_spos.cost_table import Costs, CostTable, Factor
from nni_spos.errors import CostError
from nni_spos.path import PathSpace
from nni_spos.profilers.macs import count_macs
from nni_spos.profilers.parameters import parameter_counts
from nni_spos.profilers.trace import Condition, Trace, trace_space


def build_costs(space: ModelSpace, input_shape: Sequence[int]) -> Costs:
    """Build the tables of every analytic metric: ``flops`` and ``params``.

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
    image (one multiply-add = 1 FLOP), ``params`` numbers of parameters.

    Raises
    ------
    CostError
        A layer has no formula, or computes outside of layers what would go uncounted.
    """
    path_space = PathSpace.from_model_space(space)
    trace = trace_space(space, input_shape)
    macs = [
        (call.condition, count_macs(call.module, call.input_shape, call.output_shape, call.name))
        for call in trace.calls
    ]
    _check_complete(trace, sum(cost for _, cost in macs))
    return {
        "flops": tabulate("flops", path_space, macs),
        "params": tabulate("params", path_space, parameter_counts(space)),
    }


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


def _check_complete(trace: Trace, macs: int) -> None:
    """Compare with PyTorch's own count of the same run, which also sees functional calls."""
    if trace.counted_macs > macs:
        raise CostError(
            f"the space does {trace.counted_macs - macs} multiply-adds outside of layers (such as "
            "torch.matmul or functional convolutions), which cannot be counted by choice. Put "
            "them into an nn.Module and give its formula with nni_spos.profilers.register_macs."
        )
