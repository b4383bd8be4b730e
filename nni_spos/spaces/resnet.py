"""Residual networks that choose bit widths and inner channels in every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.mutables import (
    BitsChoice,
    Channels,
    MutableBatchNorm2d,
    MutableConv2d,
    QuantConv2d,
    QuantLinear,
    SwitchableBatchNorm2d,
    bits_choice,
    channel_choice,
)
from nni_spos.mutables.quantizer_kinds import find_quantizer
from nni_spos.mutables.switchable_norm import PAIR, check_norm_per
from nni_spos.recipe.image_size import read_size
from nni_spos.spaces.preset import Preset
from nni_spos.spaces.shufflenet import (
    affine_or_default,
    check_input_size,
    check_positive,
    check_rounding,
)

BIT_PAIRS = ((1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4))
"""Bits of weights and of activations, one choice for all convolutions of a block."""

INNER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)
"""Channels inside of a block, as multiples of its output channels."""

STEMS = {"imagenet": (7, 2), "small": (3, 1)}
"""Name to kernel size and stride of the first convolution; the first has pooling behind it."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity, or a 1x1 convolution where the shape changes.

    All its convolutions share one pair of bit widths.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the block as a whole.
    inner_channels
        Between the two convolutions; may be a choice.
    stride
        1 or 2.
    bits
        Bit widths; None for full precision.
    switchable_norm
        Whether BatchNorm has statistics of its own for every pair of bit widths.
    affine
        Whether BatchNorm has weights and biases.
    quantizer
        Of the convolutions.
    norm_per
        What BatchNorm has statistics of its own for, see `nni_spos.mutables.SwitchableBatchNorm2d`.

    Notes
    -----
    Input of shape (N, in_channels, H, W) with no negative values, output (N, out_channels,
    H / stride, W / stride) likewise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        inner_channels: Channels,
        stride: int,
        bits: BitsChoice | None,
        *,
        switchable_norm: bool,
        affine: bool,
        quantizer: str = "dorefa",
        norm_per: str = PAIR,
    ):
        super().__init__()
        self._norm_per = norm_per
        self._quantizer = quantizer
        self._bits: dict[str, Any] = {}
        if bits is not None:
            self._bits = {"weight_bits": bits.weight, "activation_bits": bits.activation}
        self._switchable_norm = switchable_norm and bits is not None
        self._affine = affine
        self.main = nn.Sequential(
            self._conv(in_channels, inner_channels, 3, stride),
            self._norm(inner_channels),
            nn.ReLU(inplace=True),
            self._conv(inner_channels, out_channels, 3, 1),
            self._norm(out_channels),
        )
        self.downsample = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            conv = self._conv(in_channels, out_channels, 1, stride)
            self.downsample = nn.Sequential(conv, self._norm(out_channels))
        self.relu = nn.ReLU(inplace=True)
        del self._bits, self._quantizer, self._norm_per

    def _conv(
        self, in_channels: Channels, out_channels: Channels, kernel_size: int, stride: int
    ) -> nn.Module:
        size = (in_channels, out_channels, kernel_size, stride, kernel_size // 2)
        if not self._bits:
            return MutableConv2d(*size, bias=False)
        return QuantConv2d(*size, bias=False, **self._bits, quantizer=self._quantizer)

    def _norm(self, channels: Channels) -> nn.Module:
        if self._switchable_norm:
            return SwitchableBatchNorm2d(
                channels, **self._bits, affine=self._affine, per=self._norm_per
            )
        return MutableBatchNorm2d(channels, affine=self._affine)

    @property
    def residual_branch(self) -> nn.Module:
        """What is added to the input, or to its convolution."""
        return self.main

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.main(x) + self.downsample(x))


class ResNetSpace(ModelSpace):
    """Choose bit widths and inner channels in every block of a ResNet.

    Block i has the choices ``bits_i``, pairs such as ``2w4a`` (2-bit weights, 4-bit activations),
    and ``channels_i``, the channels between its two convolutions. The defaults are ResNet-18 for
    224-pixel images; `small` is a form of the same class for images of 16 to 64 pixels.

    Parameters
    ----------
    num_classes
        Outputs of the classifier.
    input_size
        Height and width of the images in pixels, or (height, width).
    in_channels
        Channels of the images.
    stem
        ``imagenet``: 7x7 convolution with stride 2, then pooling; ``small``: 3x3 with stride 1,
        for images of about 32 pixels.
    stage_repeats, stage_channels
        Blocks of each stage and their output channels; stages but the first begin with stride 2.
    bit_pairs
        Choices for (weight bits, activation bits); None for full precision.
    channel_scales
        Choices for the inner channels, as multiples of the block's output channels, rounded down;
        None for as many as those.
    channels_multiple_of
        Round the inner channels to multiples of this number instead.
    outer_bits
        Bit width of the first convolution and of the classifier, 32 for full precision.
    switchable_norm
        Whether BatchNorm has statistics of its own for every pair of bit widths.
    norm_per
        With `switchable_norm`: ``pair``, or ``activation_bits``, with which pairs of the same
        activation bits share statistics.
    affine
        Whether BatchNorm has weights and biases. By default not in a supernet, but in a subnet
        built for a path (``frozen_factory``, retraining).
    quantizer
        ``dorefa``, the paper's, or ``symmetric``, integers times learned steps, which become
        integers in an exported file. It takes weights of 2 or more bits, so give it ``bit_pairs``.

    Raises
    ------
    ValueError
        A number below 1, stages that do not fit each other, an unknown stem, nothing to choose, or
        a setting of choices that there are not.
    SpaceError, QuantizationError
        A scale that leaves no channels, or bit widths that there are not.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 4.4.
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        stem: str = "imagenet",
        stage_repeats: Sequence[int] = (2, 2, 2, 2),
        stage_channels: Sequence[int] = (64, 128, 256, 512),
        bit_pairs: Sequence[Sequence[int]] | None = BIT_PAIRS,
        channel_scales: Sequence[float] | None = INNER_SCALES,
        channels_multiple_of: int = 1,
        outer_bits: int = 32,
        switchable_norm: bool = False,
        affine: bool | None = None,
        quantizer: str = "dorefa",
        norm_per: str = PAIR,
    ):
        super().__init__()
        self._check(stem, stage_repeats, stage_channels)
        check_positive(num_classes=num_classes, in_channels=in_channels)
        check_input_size(input_size, 1)
        if not bit_pairs and not channel_scales:
            raise ValueError("bit_pairs and channel_scales are both None: nothing to choose.")
        if switchable_norm and not bit_pairs:
            raise ValueError("switchable_norm needs bit_pairs to switch between.")
        check_norm_per(norm_per)
        if norm_per != PAIR and not switchable_norm:
            raise ValueError(f"norm_per {norm_per} needs switchable_norm.")
        check_rounding(channels_multiple_of, channel_scales)
        _check_quantizer(quantizer, bit_pairs, outer_bits)
        affine = affine_or_default(affine)
        self.num_classes = num_classes
        self.input_size = read_size(input_size)
        self.in_channels = in_channels

        first = _outer_conv(in_channels, stage_channels[0], *STEMS[stem], outer_bits, quantizer)
        self.stem = nn.Sequential(
            first,
            nn.BatchNorm2d(stage_channels[0], affine=affine),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity(),
        )
        blocks: list[nn.Module] = []
        channels = stage_channels[0]
        for stage, (repeats, width) in enumerate(zip(stage_repeats, stage_channels, strict=True)):
            for position in range(repeats):
                number = len(blocks) + 1
                inner: Channels = width
                if channel_scales:
                    label = f"channels_{number}"
                    inner = channel_choice(label, width, channel_scales, channels_multiple_of)
                blocks.append(
                    ResidualBlock(
                        channels,
                        width,
                        inner,
                        2 if stage and position == 0 else 1,
                        _bits_choice(f"bits_{number}", bit_pairs),
                        switchable_norm=switchable_norm,
                        affine=affine,
                        quantizer=quantizer,
                        norm_per=norm_per,
                    )
                )
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = _outer_linear(channels, num_classes, outer_bits, quantizer)
        self.init_weights()

    @classmethod
    def small(cls, **arguments: Any) -> ResNetSpace:
        """Build the form for images of 16 to 64 pixels: 6 blocks, narrow, stem without stride."""
        return cls(**{**SMALL, **arguments})

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.globalpool(self.blocks(self.stem(x))).flatten(1))

    def init_weights(self) -> None:
        """Draw the initial weights of convolutions as He et al. do (arXiv 1502.01852)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _check(stem: str, repeats: Sequence[int], widths: Sequence[int]) -> None:
        if stem not in STEMS:
            raise ValueError(f"stem {stem!r} is unknown. Stems: {', '.join(STEMS)}.")
        if len(repeats) != len(widths) or not repeats or min(*repeats, *widths) < 1:
            raise ValueError(
                f"stage_repeats {list(repeats)} and stage_channels {list(widths)} must have the "
                "same length, and every stage at least one block and channel."
            )


def _check_quantizer(
    quantizer: str, pairs: Sequence[Sequence[int]] | None, outer_bits: int
) -> None:
    """Refuse a quantizer where nothing is quantized, or that lacks the bits that there are."""
    find_quantizer(quantizer)
    if quantizer != "dorefa" and not pairs and outer_bits == 32:
        raise ValueError(f"quantizer {quantizer} needs bit_pairs or outer_bits.")
    for pair in pairs or ():
        if quantizer == "symmetric" and isinstance(pair, Sequence) and pair and pair[0] == 1:
            raise ValueError(
                "quantizer symmetric has no 1-bit weights. Give bit_pairs such as "
                "[[2, 4], [4, 8], [8, 8]], or use the quantizer dorefa."
            )


def _outer_conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, bits: int, quantizer: str
) -> nn.Module:
    """Return the first convolution; images are signed, once they are normalized."""
    size = (in_channels, out_channels, kernel_size, stride, kernel_size // 2)
    if bits == 32:
        return nn.Conv2d(*size, bias=False)
    widths: dict[str, Any] = {"weight_bits": bits, "activation_bits": bits}
    return QuantConv2d(*size, bias=False, **widths, signed=True, quantizer=quantizer)


def _outer_linear(in_features: int, out_features: int, bits: int, quantizer: str) -> nn.Module:
    if bits == 32:
        return nn.Linear(in_features, out_features)
    widths: dict[str, Any] = {"weight_bits": bits, "activation_bits": bits}
    return QuantLinear(in_features, out_features, **widths, quantizer=quantizer)


def _bits_choice(label: str, pairs: Sequence[Sequence[int]] | None) -> BitsChoice | None:
    if not pairs:
        return None
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"bit_pairs: {pair!r} is not a pair of bit widths such as [2, 4].")
    return bits_choice(label, [(weight, activation) for weight, activation in pairs])


SMALL: dict[str, Any] = {
    "input_size": 32,
    "stem": "small",
    "stage_repeats": (2, 2, 2),
    "stage_channels": (8, 16, 32),
}
"""Arguments of the form for small images: half the widths of the ResNets for CIFAR-10."""

RESNET34 = Preset(ResNetSpace, {"stage_repeats": (3, 4, 6, 3)})
RESNET_SMALL = Preset(ResNetSpace, SMALL)
