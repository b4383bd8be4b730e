"""The search space of ProxylessNAS: kernel size and expansion of inverted residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from nni_spos.spaces.inverted_residual import (
    InvertedResidual,
    Style,
    UnitChain,
    block_choices,
    check_stages,
    conv_norm,
    or_skip,
)
from nni_spos.spaces.preset import Preset
from nni_spos.spaces.shufflenet import affine_or_default, check_positive

BLOCKS = {f"k{kernel}e{ratio}": (kernel, ratio, 1) for kernel in (3, 5, 7) for ratio in (3, 6)}
"""Choice to kernel size, expansion and groups."""

NORM_EPS = 1e-3
"""Of BatchNorm, as in the authors' networks."""


class ProxylessNASSpace(UnitChain):
    """Choose kernel size and expansion of every inverted residual, or to leave it out.

    Units are labelled ``layer_1``, ``layer_2``, ...; their choices are ``k3e3`` (kernel size 3,
    expansion 3), ``k3e6``, ``k5e3``, ``k5e6``, ``k7e3``, ``k7e6`` and, where stride and channels
    allow an identity, ``skip``. Stage 1 is one fixed depthwise-separable block. The defaults are
    the widths of the network for GPUs and 224-pixel images; `small` is a form of the same class
    for images of 16 to 64 pixels.

    Parameters
    ----------
    num_classes
        Outputs of the classifier.
    input_size
        Height and width of the images in pixels, or (height, width); a
        multiple of the total stride is best.
    in_channels
        Channels of the images.
    stem_channels, stem_stride
        Of the first 3x3 convolution.
    first_channels
        Outputs of the fixed block.
    stage_repeats, stage_channels, stage_strides
        Units of each stage from the second on, their output channels, and the first one's stride.
    last_channels
        Outputs of the last 1x1 convolution.
    dropout
        Probability before the classifier.
    affine
        Whether BatchNorm has weights and biases. By default not in a supernet, whose units share
        the layer behind them, but in a subnet built for a path (``frozen_factory``, retraining).
    zero_init_residual
        Whether blocks that add their input begin as identities, so that paths agree more at first
        and a supernet learns faster; needs `affine`.

    Raises
    ------
    ValueError
        A number below 1, stages that do not fit each other, or images too small for them.

    References
    ----------
    Cai et al., ProxylessNAS, ICLR 2019.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        stem_channels: int = 40,
        stem_stride: int = 2,
        first_channels: int = 24,
        stage_repeats: Sequence[int] = (4, 4, 4, 4, 4, 1),
        stage_channels: Sequence[int] = (32, 56, 112, 128, 256, 432),
        stage_strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
        last_channels: int = 1728,
        dropout: float = 0.0,
        affine: bool | None = None,
        zero_init_residual: bool = False,
    ):
        super().__init__(num_classes, input_size, in_channels)
        check_positive(
            stem_channels=stem_channels,
            first_channels=first_channels,
            last_channels=last_channels,
        )
        stages = check_stages(input_size, stem_stride, stage_repeats, stage_channels, stage_strides)
        affine = affine_or_default(affine)
        style = Style(affine, NORM_EPS, nn.ReLU6, zero_init_residual)
        choices = or_skip(block_choices(BLOCKS, style))
        stem = nn.Sequential(
            *conv_norm(in_channels, stem_channels, 3, stem_stride, style=style),
            style.activation(inplace=True),
            InvertedResidual(stem_channels, first_channels, 3, 1, style=style),
        )
        self.build(stem, first_channels, stages, choices, last_channels, dropout, style)

    @classmethod
    def small(cls, **arguments: Any) -> ProxylessNASSpace:
        """Build the form for images of 16 to 64 pixels: 7 units, narrow, stem without stride."""
        return cls(**{**SMALL, **arguments})


WIDTHS: dict[str, dict[str, Any]] = {
    "cpu": {
        "stem_channels": 40,
        "first_channels": 24,
        "stage_channels": (32, 48, 88, 104, 216, 360),
        "last_channels": 1432,
    },
    "gpu": {
        "stem_channels": 40,
        "first_channels": 24,
        "stage_channels": (32, 56, 112, 128, 256, 432),
        "last_channels": 1728,
    },
    "mobile": {
        "stem_channels": 32,
        "first_channels": 16,
        "stage_channels": (32, 40, 80, 96, 192, 320),
        "last_channels": 1280,
    },
}
"""Arguments for the widths of the three published networks, by what they were searched for."""

SMALL: dict[str, Any] = {
    "input_size": 32,
    "stem_channels": 8,
    "stem_stride": 1,
    "first_channels": 8,
    "stage_repeats": (2, 3, 2),
    "stage_channels": (16, 24, 40),
    "stage_strides": (2, 2, 2),
    "last_channels": 160,
}
"""Arguments of the form for small images."""

CPU, GPU, MOBILE = (Preset(ProxylessNASSpace, WIDTHS[name]) for name in ("cpu", "gpu", "mobile"))
PROXYLESSNAS_SMALL = Preset(ProxylessNASSpace, SMALL)
