"""The two spaces of widths of Channel-Bench-Macro, and its tables of 16,384 networks each.

A digit of a published code, 1 to 4, is the width of a place in quarters of its full width.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from nni.nas.nn.pytorch import ModelSpace, MutableBatchNorm2d, MutableConv2d, MutableLinear
from torch import Tensor, nn

from nni_spos.errors import DataError, PathError, unknown
from nni_spos.files.atomic import read_json
from nni_spos.mutables import Channels, channel_choice
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.recipe.image_size import read_size
from nni_spos.spaces.shufflenet import affine_or_default, check_input_size, check_positive
from nni_spos.spaces.trained_networks import TrainedNetworks, read_networks
from nni_spos.values import shown

SCALES = (0.25, 0.5, 0.75, 1.0)
"""Choices of every width, as parts of the full one, in the order of the digits from 1 on."""

RESNET_CHANNELS = (256, 256, 256, 512, 512, 512, 512)
MOBILENET_CHANNELS = (128, 768, 768, 768, 256, 1536, 1024)
"""Full widths of the seven places."""


def _path_space(full: Sequence[int]) -> PathSpace:
    widths = {f"channels_{i}": [int(n * x) for x in SCALES] for i, n in enumerate(full)}
    return PathSpace(widths)


RESNET_SPACE = _path_space(RESNET_CHANNELS)
MOBILENET_SPACE = _path_space(MOBILENET_CHANNELS)
"""Labels and choices."""

PATH_SPACES: Mapping[str, PathSpace] = {"resnet": RESNET_SPACE, "mobilenet": MOBILENET_SPACE}
"""By the names that the published file has for them."""


class _WidthSpace(ModelSpace):
    """What both spaces have in common: how widths are chosen, and what their layers are made of."""

    def __init__(
        self,
        num_classes: int,
        input_size: int | Sequence[int],
        in_channels: int,
        full_channels: Sequence[int],
        affine: bool | None,
    ):
        super().__init__()
        check_positive(num_classes=num_classes, in_channels=in_channels)
        check_input_size(input_size, 4)
        if len(full_channels) != len(RESNET_CHANNELS) or min(full_channels) < len(SCALES):
            raise ValueError(
                f"full_channels must be {len(RESNET_CHANNELS)} numbers of at least {len(SCALES)}, "
                f"got {list(full_channels)}."
            )
        self.num_classes = num_classes
        self.input_size = read_size(input_size)
        self.in_channels = in_channels
        self._affine = affine_or_default(affine)
        self._full = tuple(full_channels)

    def choose(self, place: int) -> Channels:
        """Return the choice of the width of a place; the same one each time."""
        return channel_choice(f"channels_{place}", self._full[place], SCALES)

    def conv(
        self, inputs: Channels, outputs: Channels, size: int, stride: int = 1, groups: Channels = 1
    ) -> list[nn.Module]:
        """Return a convolution without bias, and BatchNorm."""
        conv = MutableConv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        return [conv, MutableBatchNorm2d(outputs, affine=self._affine)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.classifier(self.globalpool(x).flatten(1))

    def init_weights(self) -> None:
        """Draw the initial weights of convolutions as He et al. do (arXiv 1502.01852)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ShortcutBlock(nn.Module):
    """Layers beside an identity.

    Parameters
    ----------
    layers
        Their output has the shape of their input.
    activation
        Behind the sum.
    """

    def __init__(self, layers: Sequence[nn.Module], activation: nn.Module):
        super().__init__()
        self.main = nn.Sequential(*layers)
        self.activation = activation

    @property
    def residual_branch(self) -> nn.Module:
        """What is added to the input."""
        return self.main

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.main(x))


class ChannelBenchResNetSpace(_WidthSpace):
    """Choose seven widths of a residual network for images of 32 pixels.

    Labels are ``channels_0`` to ``channels_6``; each has four choices, quarters of the full width.
    Places 0 and 4 are widths that blocks share, because of the shortcuts beside them: 0 is that of
    the stem and of two residual blocks, whose inner widths are 1 and 2; 3 is that between two
    convolutions, of which the first halves height and width; 4 is that of what follows, whose
    blocks have the inner widths 5 and 6.

    Parameters
    ----------
    num_classes
        Outputs of the classifier.
    input_size
        Height and width of the images in pixels, or (height, width).
    in_channels
        Channels of the images.
    full_channels
        Full width of each place; the published ones by default.
    affine
        Whether BatchNorm has weights and biases. By default not in a supernet, but in a subnet
        built for a path (``frozen_factory``, retraining).

    Raises
    ------
    ValueError
        A number below 1, images below 4 pixels, or widths that have no quarters.

    References
    ----------
    Su et al., BCNet: Searching for Network Width with Bilaterally Coupled Network, CVPR 2021.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_size: int | Sequence[int] = 32,
        in_channels: int = 3,
        full_channels: Sequence[int] = RESNET_CHANNELS,
        affine: bool | None = None,
    ):
        super().__init__(num_classes, input_size, in_channels, full_channels, affine)
        c = [self.choose(place) for place in range(len(full_channels))]

        def block(outer: Channels, inner: Channels) -> nn.Module:
            first = [*self.conv(outer, inner, 3), nn.ReLU(inplace=True)]
            return ShortcutBlock([*first, *self.conv(inner, outer, 3)], nn.ReLU(inplace=True))

        self.stem = nn.Sequential(*self.conv(in_channels, c[0], 3, 2), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            block(c[0], c[1]),
            block(c[0], c[2]),
            nn.Sequential(
                *self.conv(c[0], c[3], 3, 2),
                nn.ReLU(inplace=True),
                *self.conv(c[3], c[4], 3),
                nn.ReLU(inplace=True),
            ),
            block(c[4], c[5]),
            block(c[4], c[6]),
        )
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(c[4], num_classes)
        self.init_weights()


class ChannelBenchMobileNetSpace(_WidthSpace):
    """Choose seven widths of inverted residuals for images of 32 pixels.

    Labels are ``channels_0`` to ``channels_6``; each has four choices, quarters of the full width.
    Place 0 is the width of the stem and of two inverted residuals with a shortcut, whose hidden
    widths are 1 and 2; 3 is the hidden width of one that halves height and width; 4 is what that
    and the last one return, whose hidden width is 5; 6 is the width of the last convolution.

    Parameters
    ----------
    num_classes, input_size, in_channels, full_channels, affine
        As for `ChannelBenchResNetSpace`.

    Raises
    ------
    ValueError
        A number below 1, images below 4 pixels, or widths that have no quarters.

    References
    ----------
    Su et al., BCNet: Searching for Network Width with Bilaterally Coupled Network, CVPR 2021.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_size: int | Sequence[int] = 32,
        in_channels: int = 3,
        full_channels: Sequence[int] = MOBILENET_CHANNELS,
        affine: bool | None = None,
    ):
        super().__init__(num_classes, input_size, in_channels, full_channels, affine)
        c = [self.choose(place) for place in range(len(full_channels))]

        def layers(
            inputs: Channels, hidden: Channels, outputs: Channels, stride: int = 1
        ) -> list[nn.Module]:
            return [
                *self.conv(inputs, hidden, 1),
                nn.ReLU(inplace=True),
                *self.conv(hidden, hidden, 3, stride, groups=hidden),
                nn.ReLU(inplace=True),
                *self.conv(hidden, outputs, 1),
            ]

        self.stem = nn.Sequential(*self.conv(in_channels, c[0], 3, 2), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(
            ShortcutBlock(layers(c[0], c[1], c[0]), nn.Identity()),
            ShortcutBlock(layers(c[0], c[2], c[0]), nn.Identity()),
            nn.Sequential(*layers(c[0], c[3], c[4], 2)),
            ShortcutBlock(layers(c[4], c[5], c[4]), nn.Identity()),
            nn.Sequential(*self.conv(c[4], c[6], 1), nn.ReLU(inplace=True)),
        )
        self.globalpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = MutableLinear(c[6], num_classes)
        self.init_weights()


def path_from_code(code: str, network: str) -> Path:
    """Return the path of a published code.

    Parameters
    ----------
    code
        Seven digits 1 to 4.
    network
        ``resnet`` or ``mobilenet``.

    Raises
    ------
    PathError
        It is no such code.

    Examples
    --------
    >>> path_from_code("4432214", "resnet")["channels_3"]
    256
    """
    space = PATH_SPACES[network]
    digits = [str(digit) for digit in range(1, len(SCALES) + 1)]
    if not isinstance(code, str) or len(code) != len(space) or not set(code) <= set(digits):
        raise PathError(
            f"{shown(code)} is no code of Channel-Bench-Macro: {len(space)} digits, each one of "
            f"{', '.join(digits)}."
        )
    return {label: space[label][int(x) - 1] for label, x in zip(space, code, strict=True)}


def code_from_path(path: Mapping[str, Choice], network: str) -> str:
    """Return the published code of a path. Raises PathError.

    Examples
    --------
    >>> code_from_path(path_from_code("4432214", "resnet"), "resnet")
    '4432214'
    """
    return "".join(str(place + 1) for place in PATH_SPACES[network].key(path))


def load_channel_bench_macro(file: str | os.PathLike[str], network: str) -> TrainedNetworks:
    """Read a published table, of ``channel-bench-macro_cifar10.json``.

    Parameters
    ----------
    file
        Its JSON object: ``resnet`` and ``mobilenet``, each code to ``test_acc`` (a list),
        ``params`` and ``flops``.
    network
        Which of both.

    Raises
    ------
    DataError
        There is no such file or network, or it is not the whole table; the first code that is wrong
        is named.
    """
    if network not in PATH_SPACES:
        raise DataError(unknown("network of Channel-Bench-Macro", network, PATH_SPACES))
    content = read_json(file, DataError)
    if not isinstance(content, dict) or network not in content:
        raise DataError(f"{file}: must be one JSON object with the key '{network}'.")
    space = PATH_SPACES[network]
    codes = ["".join(str(place + 1) for place in key) for key in space.enumerate().tolist()]
    name = f"Channel-Bench-Macro, {network}"
    return read_networks(content[network], f"{file}: {network}", space, codes, name)
