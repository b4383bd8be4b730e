"""Choice units for users' own model spaces: numbers of channels, and bit widths."""

from nni.nas.nn.pytorch import (
    MutableBatchNorm2d,
    MutableConv2d,
    MutableConvTranspose2d,
    MutableGroupNorm,
    MutableLayerNorm,
    MutableLinear,
    MutablePReLU,
)

from nni_spos.mutables.advice import explain_choices
from nni_spos.mutables.channel import SCALES, Channels, channel_choice, scale_channels
from nni_spos.mutables.quantization import (
    BitsChoice,
    QuantConv2d,
    QuantLinear,
    bits_choice,
)
from nni_spos.mutables.registration import (
    ActiveSlices,
    channel_labels,
    mutation_hooks,
    share_weights,
    sliced_operations,
)
from nni_spos.mutables.sliced import SlicedOperation
from nni_spos.mutables.switchable_norm import SwitchableBatchNorm2d

explain_choices()

__all__ = [
    "SCALES",
    "ActiveSlices",
    "BitsChoice",
    "Channels",
    "MutableBatchNorm2d",
    "MutableConv2d",
    "MutableConvTranspose2d",
    "MutableGroupNorm",
    "MutableLayerNorm",
    "MutableLinear",
    "MutablePReLU",
    "QuantConv2d",
    "QuantLinear",
    "SlicedOperation",
    "SwitchableBatchNorm2d",
    "bits_choice",
    "channel_choice",
    "channel_labels",
    "mutation_hooks",
    "scale_channels",
    "share_weights",
    "sliced_operations",
]
