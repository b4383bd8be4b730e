"""The search space of FBNet: nine kinds of blocks in 22 units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from nni_spos.spaces.inverted_residual import (
    Style,
    UnitChain,
    block_choices,
    check_stages,
    conv_norm,
    or_skip,
)
from nni_spos.spaces.preset import Preset
from nni_spos.spaces.shufflenet import affine_or_default, check_positive

BLOCKS = {
    f"k{kernel}e{ratio}" + (f"g{groups}" if groups > 1 else ""): (kernel, ratio, groups)
    for kernel in (3, 5)
    for ratio, groups in ((1, 1), (1, 2), (3, 1), (6, 1))
}
"""Choice to kernel size, expansion and groups."""


class FBNetSpace(UnitChain):
    """Choose one of nine blocks in every unit.

    Units are labelled ``layer_1``, ``layer_2``, ...; their choices are inverted residuals with
    kernel size 3 or 5 and expansion 1, 3 or 6 (``k3e1``, ``k3e3``, ...), with expansion 1 and
    groups (``k3e1g2``, ``k5e1g2``) and, where stride and channels allow an identity, ``skip``.
    The defaults are the paper's 22 units for 224-pixel images, with the last convolution of
    FBNet-B and -C (FBNet-A has 1504 channels there); `small` is a form of the same class for
    images of 16 to 64 pixels.

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
    stage_repeats, stage_channels, stage_strides
        Units of each stage, their output channels, and the first one's stride.
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
        A number below 1, stages that do not fit each other, odd channel numbers, or images too
        small for the stages.

    Notes
    -----
    At expansion 1 there is no expansion convolution: a depth-wise convolution, then the projection,
    a 1x1 convolution, which in ``k3e1g2`` and ``k5e1g2`` has two groups; the channels are shuffled
    before the two. The published multiply-adds say so: with an expansion convolution, grouped or
    not, FBNet-A would have 250M or 253M instead of its 244.5M.

    References
    ----------
    Wu et al., FBNet, CVPR 2019.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        stem_channels: int = 16,
        stem_stride: int = 2,
        stage_repeats: Sequence[int] = (1, 4, 4, 4, 4, 4, 1),
        stage_channels: Sequence[int] = (16, 24, 32, 64, 112, 184, 352),
        stage_strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        last_channels: int = 1984,
        dropout: float = 0.0,
        affine: bool | None = None,
        zero_init_residual: bool = False,
    ):
        super().__init__(num_classes, input_size, in_channels)
        check_positive(
            stem_channels=stem_channels,
            last_channels=last_channels,
        )
        stages = check_stages(input_size, stem_stride, stage_repeats, stage_channels, stage_strides)
        odd = [width for width in (stem_channels, *stage_channels) if width % 2]
        if odd:
            raise ValueError(
                f"stem_channels and stage_channels must be even, for two groups, got {odd[0]}."
            )
        affine = affine_or_default(affine)
        style = Style(affine, zero_init_residual=zero_init_residual)
        choices = or_skip(block_choices(BLOCKS, style))
        stem = nn.Sequential(
            *conv_norm(in_channels, stem_channels, 3, stem_stride, style=style),
            style.activation(inplace=True),
        )
        self.build(stem, stem_channels, stages, choices, last_channels, dropout, style)

    @classmethod
    def small(cls, **arguments: Any) -> FBNetSpace:
        """Build the form for images of 16 to 64 pixels: 8 units, narrow."""
        return cls(**{**SMALL, **arguments})


SMALL: dict[str, Any] = {
    "input_size": 32,
    "stage_repeats": (1, 3, 4),
    "stage_channels": (16, 32, 64),
    "stage_strides": (1, 2, 2),
    "last_channels": 128,
}
"""Arguments of the form for small images.

It has few stages, because the first unit of each, which has no shortcut, is what a supernet takes
longest to learn.
"""

FBNET_SMALL = Preset(FBNetSpace, SMALL)
