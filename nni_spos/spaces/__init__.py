"""Search spaces, and how a recipe names them."""

from nni_spos.recipe.spaces import SPACES
from nni_spos.spaces.anew import build_network, deployed_form
from nni_spos.spaces.channelbench import (
    ChannelBenchMobileNetSpace,
    ChannelBenchResNetSpace,
    load_channel_bench_macro,
)
from nni_spos.spaces.fbnet import FBNetSpace
from nni_spos.spaces.nasbench_macro import NASBenchMacroSpace, load_nas_bench_macro
from nni_spos.spaces.proxylessnas import ProxylessNASSpace
from nni_spos.spaces.published import (
    PUBLISHED,
    PublishedNetwork,
    find_published,
    published,
    read_path,
)
from nni_spos.spaces.registry import (
    Form,
    build_space,
    default_input_shape,
    find_default,
)
from nni_spos.spaces.resnet import ResNetSpace
from nni_spos.spaces.shufflenet import ShuffleNetV2Space

__all__ = [
    "PUBLISHED",
    "SPACES",
    "ChannelBenchMobileNetSpace",
    "ChannelBenchResNetSpace",
    "FBNetSpace",
    "Form",
    "NASBenchMacroSpace",
    "ProxylessNASSpace",
    "PublishedNetwork",
    "ResNetSpace",
    "ShuffleNetV2Space",
    "build_network",
    "build_space",
    "default_input_shape",
    "deployed_form",
    "find_default",
    "find_published",
    "load_channel_bench_macro",
    "load_nas_bench_macro",
    "published",
    "read_path",
]
