"""Size of the weights."""

from __future__ import annotations

from nni_spos.metrics.base import ParameterMetric
from nni_spos.metrics.network import Network, ParameterCount
from nni_spos.metrics.units import Unit


class SizeBytes(ParameterMetric):
    """Bytes of all parameters at their bit widths."""

    name = "size_bytes"
    unit = Unit("weights (bytes)", suffix="B")

    def applies_to(self, network: Network) -> bool:
        return network.is_quantized

    def of_parameter(self, parameter: ParameterCount) -> int:
        return parameter.size_bytes
