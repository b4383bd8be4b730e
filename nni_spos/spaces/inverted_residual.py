"""Inverted residual blocks, and the chain of choice units that spaces make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_spos.recipe.image_size import read_size
from nni_spos.spaces.shufflenet import check_input_size, check_positive


@dataclass(frozen=True)
class Style:
    """What all convolutions of a network have behind them.

    Parameters
    ----------
    affine
        Whether BatchNorm has weights and biases.
    eps
        Of BatchNorm.
    activation
        Class of the activations.
    zero_init_residual
        Whether a block that adds its input begins as an identity: the weights of its last
        BatchNorm are 0 at first.

    Raises
    ------
    ValueError
        `zero_init_residual` without such weights.
    """

    affine: bool
    eps: float = 1e-5
    activation: type[nn.Module] = nn.ReLU
    zero_init_residual: bool = False

    def __post_init__(self) -> None:
        if self.zero_init_residual and not self.affine:
            raise ValueError(
                "zero_init_residual sets weights of BatchNorm, and a supernet has none by default: "
                "it needs affine: true."
            )


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    *,
    style: Style,
) -> list[nn.Module]:
    """Return a convolution that keeps the image's size, but for its stride, and its BatchNorm."""
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    return [conv, nn.BatchNorm2d(out_channels, eps=style.eps, affine=style.affine)]


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter by a depth-wise one, project by a 1x1 one.

    The input is added where the shapes agree. With expansion 1 there is no first convolution: a
    depthwise-separable block.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the block as a whole.
    kernel_size
        Of the depth-wise convolution.
    expansion
        Channels inside of the block, as a multiple of `in_channels`.
    stride
        1 or 2.
    groups
        Of the 1x1 convolutions; more than one shuffle the channels before the depth-wise one.
    style
        What is behind the convolutions; the last one has no activation.

    Notes
    -----
    Input of shape (N, in_channels, H, W), output (N, out_channels, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        expansion: int,
        stride: int = 1,
        groups: int = 1,
        *,
        style: Style,
    ):
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += conv_norm(in_channels, hidden, groups=groups, style=style)
            layers.append(style.activation(inplace=True))
        if groups > 1:
            layers.append(nn.ChannelShuffle(groups))
        layers += conv_norm(hidden, hidden, kernel_size, stride, hidden, style=style)
        layers.append(style.activation(inplace=True))
        layers += conv_norm(hidden, out_channels, groups=groups, style=style)
        self.main = nn.Sequential(*layers)
        self.adds_input = keeps_shape(in_channels, out_channels, stride)
        if self.adds_input and style.zero_init_residual:
            nn.init.zeros_(layers[-1].weight)

    @property
    def residual_branch(self) -> nn.Module | None:
        """What is added to the input, or None."""
        return self.main if self.adds_input else None

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.adds_input else self.main(x)


def keeps_shape(in_channels: int, out_channels: int, stride: int) -> bool:
    """Whether a block's output has the shape of its input, so that an identity can replace it."""
    return stride == 1 and in_channels == out_channels


Stages = Sequence[tuple[int, int, int]]
"""Units, output channels and stride of every stage; the stride is that of its first unit."""
Choices = Callable[[int, int, int], Mapping[str, nn.Module]]
"""Takes input channels, output channels and stride of a unit, and makes its choices."""


def block_choices(blocks: Mapping[str, tuple[int, int, int]], style: Style) -> Choices:
    """Return what makes the inverted residuals of a unit, by choice.

    Parameters
    ----------
    blocks
        Choice to kernel size, expansion and groups.
    style
        Of all their convolutions.
    """

    def make(in_channels: int, out_channels: int, stride: int) -> dict[str, nn.Module]:
        return {
            choice: InvertedResidual(
                in_channels, out_channels, kernel_size, expansion, stride, groups, style=style
            )
            for choice, (kernel_size, expansion, groups) in blocks.items()
        }

    return make


def or_skip(choices: Choices) -> Choices:
    """Add the choice ``skip``, an identity, to the units whose shapes allow it."""

    def make(in_channels: int, out_channels: int, stride: int) -> dict[str, nn.Module]:
        made = dict(choices(in_channels, out_channels, stride))
        if keeps_shape(in_channels, out_channels, stride):
            made["skip"] = nn.Identity()
        return made

    return make


class UnitChain(ModelSpace, disable_init_wrapper=True):  # type: ignore[call-arg]
    """A network of stem, choice units, last 1x1 convolution and classifier.

    A derived class calls `build` in its constructor. The units are labelled ``layer_1``,
    ``layer_2``, ....

    Parameters
    ----------
    num_classes
        Outputs of the classifier.
    input_size
        Height and width of the images in pixels, or (height, width).
    in_channels
        Channels of the images.

    Raises
    ------
    ValueError
        Classes or channels below 1.
    """

    def __init__(self, num_classes: int, input_size: int | Sequence[int], in_channels: int):
        super().__init__()
        check_positive(num_classes=num_classes, in_channels=in_channels)
        self.num_classes = num_classes
        self.input_size = read_size(input_size)
        self.in_channels = in_channels

    def build(
        self,
        stem: nn.Sequential,
        stem_channels: int,
        stages: Stages,
        choices: Choices,
        last_channels: int,
        dropout: float,
        style: Style,
    ) -> None:
        """Make the layers.

        Parameters
        ----------
        stem
            What is before the first unit.
        stem_channels
            Its outputs.
        stages
            See `Stages`.
        choices
            Makes the choices of a unit.
        last_channels
            Outputs of the last 1x1 convolution.
        dropout
            Probability before the classifier.
        style
            Of all convolutions.
        """
        self.stem = stem
        units: list[nn.Module] = []
        channels = stem_channels
        for repeats, width, stage_stride in stages:
            for position in range(repeats):
                stride = 1 if position else stage_stride
                label = f"layer_{len(units) + 1}"
                units.append(LayerChoice(dict(choices(channels, width, stride)), label=label))
                channels = width
        self.features = nn.Sequential(*units)
        self.conv_last = nn.Sequential(
            *conv_norm(channels, last_channels, style=style), style.activation(inplace=True)
        )
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last_channels, self.num_classes)
        self.init_weights()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_last(self.features(self.stem(x)))
        return self.classifier(self.dropout(self.globalpool(x).flatten(1)))

    def init_weights(self) -> None:
        """Draw the initial weights as the authors of ProxylessNAS do."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias)


def check_stages(
    input_size: int | Sequence[int],
    stem_stride: int,
    repeats: Sequence[int],
    widths: Sequence[int],
    strides: Sequence[int],
) -> Stages:
    """Return the stages, or refuse them.

    Raises
    ------
    ValueError
        They do not fit each other, a number is below 1, a stride is neither 1 nor 2, or the
        images are too small for the strides.
    """
    if not len(repeats) == len(widths) == len(strides) or not repeats or min(repeats) < 1:
        raise ValueError(
            f"stage_repeats {list(repeats)}, stage_channels {list(widths)} and stage_strides "
            f"{list(strides)} must have the same length, and every stage at least one unit."
        )
    check_positive(stem_stride=stem_stride)
    if min(widths) < 1:
        raise ValueError(f"stage_channels must be at least 1, got {list(widths)}.")
    if not set(strides) <= {1, 2}:
        raise ValueError(f"stage_strides must be 1 or 2, got {list(strides)}.")
    least = stem_stride * 2 ** sum(stride == 2 for stride in strides)
    check_input_size(input_size, least)
    return list(zip(repeats, widths, strides, strict=True))
