"""A small space for segmentation: an encoder of choice units, and a decoder."""

from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import Tensor, nn
from torch.nn.functional import interpolate


def block(inputs: int, outputs: int, kernel_size: int, affine: bool) -> nn.Sequential:
    """A depth-wise and a 1x1 convolution; with other outputs half the height and width."""
    stride = 1 if inputs == outputs else 2
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel_size, stride, padding, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
        nn.ReLU(),
    )


class Segmenter(ModelSpace):
    """Each unit of the encoder is a block of kernel size 3, 5 or 7, or is left out.

    Parameters
    ----------
    num_outputs, in_channels
        Numbers of classes of a pixel and of image channels; a recipe takes them from its data.
    affine
        Whether BatchNorm has weights and biases; a recipe leaves them out in a supernet.
    """

    def __init__(self, num_outputs: int = 2, in_channels: int = 3, affine: bool = True):
        super().__init__()
        widths = (16, 24, 32)
        self.stem = block(in_channels, widths[0], 3, affine)
        stages, laterals = [], []
        for i, (inputs, outputs) in enumerate(zip(widths, (*widths[1:], widths[-1]), strict=True)):
            blocks = {f"k{size}": block(inputs, inputs, size, affine) for size in (3, 5, 7)}
            unit = LayerChoice({**blocks, "skip": nn.Identity()}, label=f"unit_{i + 1}")
            stages.append(nn.Sequential(unit))
            laterals.append(nn.Conv2d(inputs, 16, 1))
            if outputs != inputs:
                stages.append(block(inputs, outputs, 3, affine))
        self.stages = nn.ModuleList(stages)
        self.laterals = nn.ModuleList(laterals)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(16, num_outputs, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        x, levels = self.stem(images), []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number % 2 == 0:
                # Here and not in the decoder: paths that agree so far share it in the search.
                levels.append(self.laterals[number // 2](x))
        found = levels[-1]
        for level in levels[-2::-1]:
            found = level + interpolate(found, size=level.shape[-2:], mode="nearest")
        size = images.shape[-2:]
        return interpolate(self.head(found), size=size, mode="bilinear", align_corners=False)
