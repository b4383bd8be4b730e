"""From layer costs with conditions to cost tables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from nni_spos.components import explain
from nni_spos.cost_table import Costs, CostTable
from nni_spos.errors import CostError, SposError
from nni_spos.metrics import Condition, Layer, Metric, Network
from nni_spos.metrics.units import LATENCY, remember_unit
from nni_spos.mutables.quantization import Quantized
from nni_spos.path import PathSpace
from nni_spos.profilers.macs import is_registered
from nni_spos.profilers.networks import check_networks, listed, macs_of, own_places
from nni_spos.profilers.parameters import count_parameters
from nni_spos.profilers.peaks import find_peaks
from nni_spos.profilers.trace import LayerCall, Trace, trace_space
from nni_spos.recipe.registries import METRICS
from nni_spos.spaces import deployed_form


def build_costs(
    space: ModelSpace, input_shape: Sequence[int], metrics: Sequence[Metric] = ()
) -> Costs:
    """Build the tables of every metric that follows from the layers of a space.

    Parameters
    ----------
    space
        A model space; it is not changed. Networks are counted as `nni_spos.build_network` builds
        them: one whose constructor has the argument ``affine=None`` with affine BatchNorm.
    input_shape
        Of one image: (channels, height, width).
    metrics
        Further ones, beside ours.

    Returns
    -------
    Tables by metric: ``flops`` are multiply-adds for one image (one multiply-add = 1 FLOP), of
    every operator that multiplies matrices or convolves, in layers and outside of them; what is
    computed element by element costs nothing. ``params`` are numbers of parameters. A space with
    quantized layers also has ``bitops`` and ``size_bytes`` (of all parameters at their bit widths),
    see `nni_spos.metrics`. Then those of `metrics`.

    Raises
    ------
    CostError
        An operator cannot be counted, or a cost depends on choices in a way that is not known; or
        a further metric cannot be computed, or has the name of another.
    """
    space = deployed_form(space)
    path_space = PathSpace.from_model_space(space)  # refuses labels before anything is run
    trace = trace_space(space, input_shape)
    find = functools.partial(find_peaks, space, input_shape, path_space)
    network = _describe(trace, path_space, find)
    every: list[Any] = [METRICS.find(name) for name in METRICS.ours]
    ours: list[Metric] = [metric() for metric in every if not metric.is_optional]
    costs = {x.name: x.table(network) for x in ours if x.applies_to(network)}
    places = [*own_places(trace.calls), *(f"layer '{name}'" for name in trace.bypassed)]
    if places:
        check_networks(space, input_shape, costs["flops"], listed(places))
    for metric in metrics:
        table = _table(metric, network)
        if table is None:
            continue
        is_ours = METRICS.ours.get(metric.name, "").endswith(f":{type(metric).__name__}")
        if metric.name in {LATENCY, *costs} or (metric.name in METRICS.ours and not is_ours):
            raise CostError(
                f"metric {type(metric).__name__}: another metric is called '{metric.name}' too. "
                "Give its attribute 'name' another value."
            )
        costs[metric.name] = table
        remember_unit(metric.name, metric.unit)
    return costs


def describe_network(
    space: ModelSpace, input_shape: Sequence[int], path_space: PathSpace | None = None
) -> Network:
    """Return the layers and parameters of all paths of a space, for its metrics.

    Parameters
    ----------
    space, input_shape
        See `build_costs`, which also says the errors.
    path_space
        Labels and their choices, for a network of one path, which has none itself.
    """
    path_space = PathSpace.from_model_space(space) if path_space is None else path_space
    find = functools.partial(find_peaks, space, input_shape, path_space)
    return _describe(trace_space(space, input_shape), path_space, find)


def _describe(
    trace: Trace, path_space: PathSpace, find: Callable[[], Sequence[tuple[Condition, int]]]
) -> Network:
    layers = [_layer(call) for call in trace.calls]
    return Network(path_space, layers, list(count_parameters(trace.space)), find)


def _table(metric: Metric, network: Network) -> CostTable | None:
    """Return the table of a user's metric, if the space has such a cost. Raises CostError."""
    try:
        return metric.table(network) if metric.applies_to(network) else None
    except SposError:
        raise
    except Exception as problem:  # the metric's own code runs: anything can be raised
        text = explain(problem, None)
        raise CostError(f"metric {type(metric).__name__}: cannot be computed: {text}") from problem


def _layer(call: LayerCall) -> Layer:
    module: Any = call.module
    is_quantized = isinstance(module, Quantized)
    return Layer(
        call.name,
        module,
        call.input_shape,
        call.output_shape,
        call.condition,
        macs=macs_of(call),
        weight_bits=module.weight_bits if is_quantized else None,
        activation_bits=module.activation_bits if is_quantized else None,
        varies=call.varies,
        macs_vary=call.varies if is_registered(module) else call.products_vary,
        title=call.title,
        places=listed(own_places([call])) if call.varies else "",
    )
