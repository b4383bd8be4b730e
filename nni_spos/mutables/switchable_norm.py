"""BatchNorm behind quantized layers, with tensors of its own for bit widths."""

from __future__ import annotations

from typing import Any

from nni.nas.nn.pytorch import ParametrizedModule
from torch import nn

from nni_spos.errors import QuantizationError
from nni_spos.mutables.quantization import check_layer_bits

PAIR, ACTIVATIONS = "pair", "activation_bits"
"""What a BatchNorm may have tensors of its own for: each pair of bits, or those of activations."""


def check_norm_per(per: Any) -> None:
    """Refuse what a BatchNorm cannot have tensors of its own for. Raises QuantizationError."""
    if per not in (PAIR, ACTIVATIONS):
        raise QuantizationError(f"per must be {PAIR} or {ACTIVATIONS}, got {per!r:.80}.")


class PairedBatchNorm2d(nn.BatchNorm2d):
    """What a `SwitchableBatchNorm2d` is on one path: BatchNorm, with its bit widths noted."""

    def __init__(
        self,
        num_features: int,
        weight_bits: int,
        activation_bits: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        per: str = PAIR,
    ):
        super().__init__(
            num_features,
            eps,
            momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            device=device,
            dtype=dtype,
        )
        check_layer_bits(weight_bits, activation_bits)
        check_norm_per(per)
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.per = per


class SwitchableBatchNorm2d(ParametrizedModule, PairedBatchNorm2d, wraps=PairedBatchNorm2d):  # type: ignore[call-arg]
    """BatchNorm with statistics, weights and biases of its own for bit widths, pair by pair.

    Takes the place of ``nn.BatchNorm2d`` behind a `QuantConv2d`. Not needed where statistics are
    recalibrated for every path, as they are in our search.

    Parameters
    ----------
    num_features
        A number or a choice.
    weight_bits, activation_bits
        Those of the layer before.
    eps, momentum, affine, track_running_stats
        As of ``nn.BatchNorm2d``.
    per
        ``pair``, or ``activation_bits``: pairs with the same bit width of activations then share
        statistics, weights and biases, of which fewer have to be trained.

    References
    ----------
    Jin et al., AdaBits, CVPR 2020.
    """
