"""Search spaces, and how a recipe names them."""

from nni_spos.spaces.registry import SPACES, Form, build_space, default_input_shape
from nni_spos.spaces.resnet import ResNetSpace
from nni_spos.spaces.shufflenet import ShuffleNetV2Space

__all__ = [
    "SPACES",
    "Form",
    "ResNetSpace",
    "ShuffleNetV2Space",
    "build_space",
    "default_input_shape",
]
