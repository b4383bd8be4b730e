"""Multiply-adds."""

from __future__ import annotations

from nni_spos.metrics.base import LayerMetric
from nni_spos.metrics.network import Layer
from nni_spos.metrics.units import Unit


class Flops(LayerMetric):
    """Multiply-adds of convolutions and linear layers for one image.

    One multiply-add counts as 1 FLOP, as in the paper.
    """

    name = "flops"
    unit = Unit("multiply-adds")
    reads_shapes = False

    def of_layer(self, layer: Layer) -> int:
        return layer.macs
