"""BitOps of layers."""

from __future__ import annotations

from torch import nn

from nni_spos.mutables.quantization import Quantized


def count_bitops(layer: nn.Module, macs: int) -> int:
    """Return a layer's multiply-adds times the bits of its weights and of its inputs.

    Only quantized layers count: not the first convolution and the classifier of our spaces,
    unless they are quantized as well. Padding counts, as it does for multiply-adds. The result
    is a proxy: common runtimes have integer kernels for 8 bits only.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 4.4. Its G is 2^30.
    """
    if not isinstance(layer, Quantized):
        return 0
    return macs * layer.weight_bits * layer.activation_bits
