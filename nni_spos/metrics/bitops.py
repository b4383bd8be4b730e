"""BitOps of quantized layers."""

from __future__ import annotations

from nni_spos.metrics.base import LayerMetric
from nni_spos.metrics.network import Layer, Network
from nni_spos.metrics.units import Unit


class BitOps(LayerMetric):
    """A layer's multiply-adds times the bits of its weights and of its inputs.

    Only quantized layers count: not the first convolution and the classifier of our spaces,
    unless they are quantized as well. Padding counts, as it does for multiply-adds. The result
    is a proxy: common runtimes have integer kernels for 8 bits only.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 4.4. Its G is 2^30.
    """

    name = "bitops"
    unit = Unit("BitOps", binary=True)
    reads_shapes = False

    def applies_to(self, network: Network) -> bool:
        return network.is_quantized

    def of_layer(self, layer: Layer) -> int:
        if layer.weight_bits is None or layer.activation_bits is None:
            return 0
        return layer.macs * layer.weight_bits * layer.activation_bits
