"""The paper's block search space, made of ShuffleNetV2 units.

The names of modules, labels and choices are those of ``nni.nas.hub.pytorch.ShuffleNetSpace``,
so that paths and weights of its networks load unchanged.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from nni.mutable import MutableExpression
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import current_model
from torch import Tensor, nn

from nni_spos.mutables import SCALES, Channels, MutableBatchNorm2d, MutableConv2d, channel_choice
from nni_spos.recipe.image_size import IMAGE_SIZE, height_width, read_size
from nni_spos.spaces.preset import Preset

BLOCKS = {"k3": ("pdp", 3), "k5": ("pdp", 5), "k7": ("pdp", 7), "xcep": ("dpdpdp", 3)}
"""Choice to the order of its point-wise (p) and depth-wise (d) convolutions, and kernel size."""


def _conv_bn(
    in_channels: Channels,
    out_channels: Channels,
    kernel_size: int = 1,
    stride: int = 1,
    groups: Channels = 1,
    *,
    affine: bool,
    relu: bool = True,
) -> list[nn.Module]:
    is_choice = any(isinstance(x, MutableExpression) for x in (in_channels, out_channels))
    conv = (MutableConv2d if is_choice else nn.Conv2d)(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        kernel_size // 2,
        groups=groups,
        bias=False,
    )
    norm = MutableBatchNorm2d if isinstance(out_channels, MutableExpression) else nn.BatchNorm2d
    layers: list[nn.Module] = [conv, norm(out_channels, affine=affine)]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


def _split_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the even and the odd channels, in the memory format of `x`.

    Slices are enough for contiguous tensors. For channels_last ones, where a pixel's channels lie
    side by side, their gradient would be two zero-filled tensors in the other memory format, so
    that every layer before would convert; reading the channels as pairs makes whole training
    steps about a tenth faster.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x[:, 0::2], x[:, 1::2]
    even, odd = x.permute(0, 2, 3, 1).unflatten(3, (-1, 2)).unbind(4)
    # The odd half goes into convolutions, which would make this copy again in the backward pass.
    return even.permute(0, 3, 1, 2), odd.contiguous().permute(0, 3, 1, 2)


class ShuffleUnit(nn.Module):
    """One choice block: a main branch beside an identity or a projection.

    With stride 1 the even channels pass through and the odd ones are transformed (this is the
    channel shuffle); with stride 2 both branches see all channels.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the unit as a whole.
    mid_channels
        Channels between the first and the last convolution of the main branch; may be a choice.
    choice
        Key of `BLOCKS`.
    stride
        1 or 2.
    affine
        Whether BatchNorm has weights and biases.

    Notes
    -----
    Input of shape (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: Channels,
        choice: str,
        stride: int,
        *,
        affine: bool,
    ):
        super().__init__()
        self.stride = stride
        sequence, kernel_size = BLOCKS[choice]
        kept = in_channels // 2 if stride == 1 else in_channels
        self.branch_main = nn.Sequential(
            *self._main(kept, mid_channels, out_channels - kept, sequence, kernel_size, affine)
        )
        projection = (
            _conv_bn(kept, kept, kernel_size, 2, kept, affine=affine, relu=False)
            + _conv_bn(kept, kept, affine=affine)
            if stride == 2
            else []
        )
        self.branch_proj = nn.Sequential(*projection)

    def _main(
        self,
        channels: Channels,
        mid: Channels,
        out: int,
        sequence: str,
        kernel_size: int,
        affine: bool,
    ) -> list[nn.Module]:
        layers: list[nn.Module] = []
        stride = self.stride
        for position, kind in enumerate(sequence):
            if kind == "d":
                layers += _conv_bn(
                    channels, channels, kernel_size, stride, channels, affine=affine, relu=False
                )
                stride = 1
            else:
                width = out if position == len(sequence) - 1 else mid
                layers += _conv_bn(channels, width, affine=affine)
                channels = width
        return layers

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return torch.cat((self.branch_proj(x), self.branch_main(x)), 1)
        even, odd = _split_channels(x)
        return torch.cat((even, self.branch_main(odd)), 1)


class ShuffleNetV2Space(ModelSpace):
    """Choose one of four ShuffleNetV2 blocks in every unit, its number of channels, or both.

    Units are labelled ``layer_1``, ``layer_2``, ...; their choices are ``k3``, ``k5``, ``k7``
    (kernel size of the depth-wise convolution) and ``xcep`` (three depth-wise 3x3 convolutions).
    With `channel_scales` the channels inside of unit i are the choice ``channels_i``, the same
    for all its blocks. The defaults are the paper's block space of 20 units for 224-pixel images;
    `small` is a form of the same class for images of 16 to 64 pixels.

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
    stage_repeats, stage_channels
        Units of each stage and their output channels; a stage's first unit has stride 2.
    last_channels
        Outputs of the last 1x1 convolution.
    dropout
        Probability before the classifier.
    blocks
        The block of every unit, or of all alike; by default they are choices.
    channel_scales
        Choices for the channels inside of each unit, as multiples of half its output channels,
        rounded down; the paper's are `nni_spos.mutables.SCALES`. By default there are no choices.
    channels_multiple_of
        Round the scaled channels to multiples of this number instead.
    affine
        Whether BatchNorm has weights and biases. By default not in a supernet, whose units share
        the layer behind them, but in a subnet built for a path (``frozen_factory``, retraining).

    Raises
    ------
    ValueError
        A number below 1, stages that do not fit each other, odd channel numbers, images too
        small for them, unknown blocks, nothing to choose, or a setting of choices that there are
        not.
    SpaceError
        A scale that leaves no channels.

    References
    ----------
    Guo et al., Single Path One-Shot NAS, ECCV 2020, section 4 and the authors' released code.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        input_size: int | Sequence[int] = 224,
        in_channels: int = 3,
        stem_channels: int = 16,
        stem_stride: int = 2,
        stage_repeats: Sequence[int] = (4, 4, 8, 4),
        stage_channels: Sequence[int] = (64, 160, 320, 640),
        last_channels: int = 1024,
        dropout: float = 0.1,
        blocks: str | Sequence[str] | None = None,
        channel_scales: Sequence[float] | None = None,
        channels_multiple_of: int = 1,
        affine: bool | None = None,
    ):
        super().__init__()
        check_positive(
            num_classes=num_classes,
            in_channels=in_channels,
            stem_channels=stem_channels,
            stem_stride=stem_stride,
            last_channels=last_channels,
        )
        self._check(input_size, stem_channels, stem_stride, stage_repeats, stage_channels)
        fixed_blocks = _fixed_blocks(blocks, sum(stage_repeats))
        if fixed_blocks and not channel_scales:
            raise ValueError("blocks are given and channel_scales are not: nothing to choose.")
        check_rounding(channels_multiple_of, channel_scales)
        affine = affine_or_default(affine)
        self.num_classes = num_classes
        self.input_size = read_size(input_size)
        self.in_channels = in_channels

        self.first_conv = nn.Sequential(
            *_conv_bn(in_channels, stem_channels, 3, stem_stride, affine=affine)
        )
        units: list[nn.Module] = []
        channels = stem_channels
        for repeats, width in zip(stage_repeats, stage_channels, strict=True):
            for position in range(repeats):
                stride = 2 if position == 0 else 1
                number = len(units) + 1
                mid: Channels = width // 2
                if channel_scales:
                    mid = channel_choice(
                        f"channels_{number}", width // 2, channel_scales, channels_multiple_of
                    )
                candidates = {
                    choice: ShuffleUnit(channels, width, mid, choice, stride, affine=affine)
                    for choice in (fixed_blocks[number - 1 : number] or BLOCKS)
                }
                units.append(
                    candidates[fixed_blocks[number - 1]]
                    if fixed_blocks
                    else LayerChoice(candidates, label=f"layer_{number}")
                )
                channels = width
        self.features = nn.Sequential(*units)
        self.conv_last = nn.Sequential(*_conv_bn(channels, last_channels, affine=affine))
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(nn.Linear(last_channels, num_classes, bias=False))
        self.init_weights()

    @classmethod
    def small(cls, **arguments: Any) -> ShuffleNetV2Space:
        """Build the form for images of 16 to 64 pixels: 8 units, narrow, stem without stride."""
        return cls(**{**SMALL, **arguments})

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_last(self.features(self.first_conv(x)))
        return self.classifier(self.dropout(self.globalpool(x).flatten(1)))

    def init_weights(self) -> None:
        """Draw the initial weights as the authors' released code does."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                std = 0.01 if name.startswith("first_conv") else 1.0 / module.weight.shape[1]
                nn.init.normal_(module.weight, 0.0, std)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
            elif isinstance(module, nn.BatchNorm2d) and module.bias is not None:
                nn.init.constant_(module.bias, 0.0001)

    @staticmethod
    def _check(
        input_size: int | Sequence[int],
        stem_channels: int,
        stem_stride: int,
        repeats: Sequence[int],
        widths: Sequence[int],
    ) -> None:
        if len(repeats) != len(widths) or not repeats or min(repeats) < 1:
            raise ValueError(
                f"stage_repeats {list(repeats)} and stage_channels {list(widths)} must have the "
                "same length, and every stage at least one unit."
            )
        channels = [stem_channels, *widths]
        if any(width % 2 for width in widths) or any(
            after <= before for before, after in itertools.pairwise(channels)
        ):
            raise ValueError(
                f"stage_channels must be even and grow from stem_channels {stem_channels}, "
                f"got {list(widths)}."
            )
        least = stem_stride * 2 ** len(repeats)
        check_input_size(input_size, least)


def _fixed_blocks(blocks: str | Sequence[str] | None, num_units: int) -> list[str]:
    """Return a block for every unit, or none if they are choices. Raises ValueError."""
    if blocks is None:
        return []
    given = [blocks] * num_units if isinstance(blocks, str) else list(blocks)
    unknown = [block for block in given if block not in BLOCKS]
    if unknown:
        raise ValueError(f"blocks: {unknown[0]!r} is unknown. Blocks: {', '.join(BLOCKS)}.")
    if len(given) != num_units:
        raise ValueError(f"blocks: {len(given)} are given for {num_units} units.")
    return given


def affine_or_default(affine: bool | None) -> bool:
    """Return whether BatchNorm has weights and biases; by default in a subnet only."""
    return current_model() is not None if affine is None else affine


def check_positive(**numbers: int) -> None:
    """Refuse numbers below 1, by name. Raises ValueError."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")


def check_input_size(size: int | Sequence[int], least: int) -> None:
    """Refuse images with a side that is too short, or what is no size. Raises ValueError."""
    if not IMAGE_SIZE.accepts(size):
        raise ValueError(f"input_size must be {IMAGE_SIZE.words}, got {size}.")
    if min(height_width(size)) < least:
        raise ValueError(f"input_size must be at least {least} pixels, got {size}.")


def check_rounding(multiple_of: int, scales: Sequence[float] | None) -> None:
    """Refuse the rounding of channels that are no choices. Raises ValueError."""
    if multiple_of != 1 and not scales:
        raise ValueError(f"channels_multiple_of {multiple_of} needs channel_scales to round.")


SMALL: dict[str, Any] = {
    "input_size": 32,
    "stem_stride": 1,
    "stage_repeats": (2, 4, 2),
    "stage_channels": (32, 64, 128),
    "last_channels": 256,
}
"""Arguments of the form for small images."""

_SCALED: dict[str, Any] = {"channel_scales": SCALES}

SHUFFLENET_SMALL = Preset(ShuffleNetV2Space, SMALL)
CHANNELS = Preset(ShuffleNetV2Space, {**_SCALED, "blocks": "k3"})
CHANNELS_SMALL = Preset(ShuffleNetV2Space, {**SMALL, **_SCALED, "blocks": "k3"})
JOINT = Preset(ShuffleNetV2Space, _SCALED)
JOINT_SMALL = Preset(ShuffleNetV2Space, {**SMALL, **_SCALED})
