"""What a path costs: the metrics, their names and units, and how each follows from the layers.

Needs neither PyTorch nor NNI. What a metric is computed from is found by `nni_spos.profilers`.
"""

from nni_spos.metrics.base import LayerMetric, Metric, ParameterMetric
from nni_spos.metrics.network import Condition, Layer, Network, ParameterCount
from nni_spos.metrics.units import Unit, format_metric, metric_title

__all__ = [
    "Condition",
    "Layer",
    "LayerMetric",
    "Metric",
    "Network",
    "ParameterCount",
    "ParameterMetric",
    "Unit",
    "format_metric",
    "metric_title",
]
