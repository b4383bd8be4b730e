"""Numbers of parameters."""

from __future__ import annotations

from nni_spos.metrics.base import ParameterMetric
from nni_spos.metrics.network import ParameterCount
from nni_spos.metrics.units import Unit


class Params(ParameterMetric):
    """Elements of all parameters."""

    name = "params"
    unit = Unit("parameters")

    def of_parameter(self, parameter: ParameterCount) -> int:
        return parameter.number
