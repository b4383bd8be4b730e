"""BatchNorm as a part of the convolution before it, wherever in a network that is.

What runs before what is read from a trace of the network and not from the order of its modules: so
that it works in any network that can be traced, and only where nobody else sees what is between.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

NamePair = tuple[str, str]
"""Names of a convolution and of the BatchNorm behind it."""


def fold_batchnorm(network: nn.Module, images: Tensor) -> nn.Module:
    """Fold every BatchNorm that follows a convolution alone, in place.

    Parameters
    ----------
    network
        In evaluation mode.
    images
        Some that it takes, shape (N, C, H, W).

    Returns
    -------
    The network.

    Raises
    ------
    Exception
        Whatever PyTorch raises if it cannot be traced; the network is then as it was.
    """
    for conv_name, norm_name in find_pairs(network, images):
        conv: Any = network.get_submodule(conv_name)
        norm: Any = network.get_submodule(norm_name)
        fused = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, TRANSPOSED))
        network.set_submodule(conv_name, fused)
        network.set_submodule(norm_name, nn.Identity())
    return network


def find_pairs(network: nn.Module, images: Tensor) -> list[NamePair]:
    """Return the convolutions that a BatchNorm can be folded into, and that BatchNorm."""
    with torch.no_grad():
        program = torch.export.export(network, (images,), strict=False)
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    once = _used_once(network)
    pairs = []
    for node in program.graph.nodes:
        if "batch_norm" not in str(node.target) or node.op != "call_function":
            continue
        before = node.args[0]
        if (
            before.op != "call_function"
            or "conv" not in str(before.target)
            or len(before.users) != 1
        ):
            continue
        weight, mean = before.args[1], node.args[3]
        if any(x.op != "placeholder" or len(x.users) != 1 for x in (weight, mean)):
            continue
        conv = str(names.get(weight.name, "")).removesuffix(".weight")
        norm = str(names.get(mean.name, "")).removesuffix(".running_mean")
        if conv in once and norm in once and _is_foldable(once[conv], once[norm]):
            pairs.append((conv, norm))
    return pairs


def _used_once(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that have one name each: of others, which call is meant is not known."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return {found[0]: module for module, found in names.items() if len(found) == 1 and found[0]}


def _is_foldable(conv: nn.Module, norm: nn.Module) -> bool:
    is_known = type(conv) in (*CONVOLUTIONS, *TRANSPOSED) and isinstance(norm, _BatchNorm)
    return is_known and not any(x._forward_hooks or x._forward_pre_hooks for x in (conv, norm))
