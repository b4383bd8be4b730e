"""Your own search space: blocks, numbers of channels and bit widths in one search."""

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn

from nni_spos.mutables import (
    BitsChoice,
    Channels,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    QuantConv2d,
    bits_choice,
    channel_choice,
)


class Block(nn.Sequential):
    """A depth-wise and a 1x1 convolution; the shape stays."""

    def __init__(self, channels: Channels, kernel_size: int, affine: bool):
        padding = kernel_size // 2
        super().__init__(
            MutableConv2d(
                channels, channels, kernel_size, padding=padding, groups=channels, bias=False
            ),
            MutableConv2d(channels, channels, 1, bias=False),
            MutableBatchNorm2d(channels, affine=affine),
            nn.ReLU(),
        )


class Reduction(nn.Sequential):
    """A quantized convolution to half the height and width, and twice the channels."""

    def __init__(self, channels: Channels, bits: BitsChoice, affine: bool):
        quantization = {"weight_bits": bits.weight, "activation_bits": bits.activation}
        super().__init__(
            QuantConv2d(channels, channels * 2, 3, 2, padding=1, bias=False, **quantization),
            MutableBatchNorm2d(channels * 2, affine=affine),
            nn.ReLU(),
        )


class MySpace(ModelSpace):
    """A small network with 324 paths.

    All layers follow one choice of channels, ``width``; two blocks (``block_1``, ``block_2``) and
    two pairs of bit widths (``bits_1``, ``bits_2``) are chosen on their own.

    Parameters
    ----------
    num_classes, in_channels
        Numbers of classes and of image channels; a recipe takes them from its data.
    affine
        Whether BatchNorm has weights and biases; a recipe leaves them out in a supernet.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1, affine: bool = True):
        super().__init__()
        channels = channel_choice("width", 16, scales=[0.5, 0.75, 1, 1.25])  # 8, 12, 16 or 20
        stem = MutableConv2d(in_channels, channels, 3, padding=1, bias=False)
        layers = [stem, MutableBatchNorm2d(channels, affine=affine), nn.ReLU()]
        for i in (1, 2):
            blocks = {f"k{size}": Block(channels, size, affine) for size in (3, 5)}
            layers.append(LayerChoice({**blocks, "skip": nn.Identity()}, label=f"block_{i}"))
            bits = bits_choice(f"bits_{i}", [(2, 4), (4, 4), (8, 8)])
            layers.append(Reduction(channels, bits, affine))
            channels = channels * 2  # still the choice "width"
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = MutableLinear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
