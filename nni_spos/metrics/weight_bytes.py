"""Size of the weights, of any network."""

from __future__ import annotations

from nni_spos.metrics.base import ParameterMetric
from nni_spos.metrics.network import ParameterCount
from nni_spos.metrics.units import Unit


class WeightBytes(ParameterMetric):
    """Bytes of all parameters: what a small device keeps in its flash.

    A parameter of float takes 4 bytes, a quantized one its bits, packed.
    """

    name = "weight_bytes"
    unit = Unit("weights in flash (bytes)", suffix="B")
    is_optional = True

    def of_parameter(self, parameter: ParameterCount) -> int:
        return parameter.size_bytes
