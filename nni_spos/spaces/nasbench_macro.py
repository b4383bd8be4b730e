"""The search space of NAS-Bench-Macro, and its table of 6561 networks trained from scratch.

Blocks 0, 1 and 2 of the published codes are the choices ``identity``, ``k3e3`` and ``k5e6``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from torch import nn

from nni_spos.errors import DataError, PathError
from nni_spos.files.atomic import read_json
from nni_spos.path import Choice, Path, PathSpace
from nni_spos.spaces.inverted_residual import (
    Style,
    UnitChain,
    block_choices,
    check_stages,
    conv_norm,
    keeps_shape,
)
from nni_spos.spaces.shufflenet import affine_or_default
from nni_spos.spaces.trained_networks import TrainedNetworks, read_networks
from nni_spos.values import shown

BLOCKS = {"k3e3": (3, 3, 1), "k5e6": (5, 6, 1)}
"""Choice to kernel size, expansion and groups; besides these there is the identity."""

CHOICES = ("identity", *BLOCKS)
"""Choices in the order of the digits that stand for them in a code."""

STEM_CHANNELS = 32
STAGE_REPEATS = (2, 3, 3)
STAGE_CHANNELS = (64, 128, 256)
STAGE_STRIDES = (2, 2, 2)
LAST_CHANNELS = 1280

SPACE = PathSpace({f"layer_{i}": CHOICES for i in range(1, sum(STAGE_REPEATS) + 1)})
"""Labels and choices."""


class NASBenchMacroSpace(UnitChain):
    """Choose an identity or one of two inverted residuals in each of 8 units.

    Units are labelled ``layer_1`` to ``layer_8``; their choices are ``identity`` (a 1x1
    convolution where stride or channels change), ``k3e3`` (kernel size 3, expansion 3) and
    ``k5e6``.

    Parameters
    ----------
    num_classes
        Outputs of the classifier.
    input_size
        Height and width of the images in pixels, or (height, width).
    in_channels
        Channels of the images.
    affine
        Whether BatchNorm has weights and biases. By default not in a supernet, whose units share
        the layer behind them, but in a subnet built for a path (``frozen_factory``, retraining).
    zero_init_residual
        Whether blocks that add their input begin as identities, so that paths agree more at first
        and a supernet learns faster; needs `affine`.

    Raises
    ------
    ValueError
        A number below 1, or images below 8 pixels.

    References
    ----------
    Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR 2021.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_size: int | Sequence[int] = 32,
        in_channels: int = 3,
        affine: bool | None = None,
        zero_init_residual: bool = False,
    ):
        super().__init__(num_classes, input_size, in_channels)
        stages = check_stages(input_size, 1, STAGE_REPEATS, STAGE_CHANNELS, STAGE_STRIDES)
        affine = affine_or_default(affine)
        style = Style(affine, zero_init_residual=zero_init_residual)
        residuals = block_choices(BLOCKS, style)

        def choices(inputs: int, outputs: int, stride: int) -> dict[str, nn.Module]:
            identity: nn.Module = nn.Identity()
            if not keeps_shape(inputs, outputs, stride):
                identity = nn.Sequential(*conv_norm(inputs, outputs, 1, stride, style=style))
            return {"identity": identity, **residuals(inputs, outputs, stride)}

        stem = nn.Sequential(
            *conv_norm(in_channels, STEM_CHANNELS, 3, style=style), style.activation(inplace=True)
        )
        self.build(stem, STEM_CHANNELS, stages, choices, LAST_CHANNELS, 0.0, style)


def path_from_code(code: str) -> Path:
    """Return the path of a published code.

    Raises
    ------
    PathError
        The code is not 8 digits 0, 1 or 2.

    Examples
    --------
    >>> path_from_code("02012100")["layer_2"]
    'k5e6'
    """
    digits = [str(digit) for digit in range(len(CHOICES))]
    if not isinstance(code, str) or len(code) != len(SPACE) or not set(code) <= set(digits):
        raise PathError(
            f"{shown(code)} is no code of NAS-Bench-Macro: {len(SPACE)} digits, each one of "
            f"{', '.join(digits)}."
        )
    return {label: CHOICES[int(digit)] for label, digit in zip(SPACE, code, strict=True)}


def code_from_path(path: Mapping[str, Choice]) -> str:
    """Return the published code of a path. Raises PathError.

    Examples
    --------
    >>> code_from_path(path_from_code("02012100"))
    '02012100'
    """
    return "".join(map(str, SPACE.key(path)))


def load_nas_bench_macro(file: str | os.PathLike[str]) -> TrainedNetworks:
    """Read the published table, ``nas-bench-macro_cifar10.json``.

    Parameters
    ----------
    file
        Its JSON object: code to ``test_acc`` (a list), ``params`` and ``flops``, and more.

    Raises
    ------
    DataError
        There is no such file, or it is not the whole table; the first code that is wrong is named.
    """
    codes = ["".join(map(str, key)) for key in SPACE.enumerate().tolist()]
    return read_networks(read_json(file, DataError), file, SPACE, codes, "NAS-Bench-Macro")
