"""Whether a supernet is, on a path, the network that the space's constructor builds for it.

A supernet has other layers than that network, and code can tell: it can hold a unit elsewhere than
in an attribute, ask what kind of layer it is, or do something to its layers that a path's part of
them does not show. So the network is built, gets the supernet's weights, and both are run.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.errors import one_line
from nni_spos.modules.active_path import choice_units, set_path
from nni_spos.modules.agreement import Outputs, RunOfType, differ
from nni_spos.modules.copies import copy_values
from nni_spos.modules.memory_format import kept_buffers, kept_generators, seed_generators
from nni_spos.modules.subnet import extract_subnet, without_path
from nni_spos.path import Path
from nni_spos.training.layout import train_once

_UNITS = (
    "A copy of a path's layers must run by itself: run units as attributes of their modules, let "
    "no function, hook or bound method that is kept refer to the space, and no code depend on what "
    "kind of layer a unit is"
)
_CONSTRUCTOR = (
    "Do in the space's constructor what is done to its layers, for any choices; what is added to a "
    "layer with choices belongs into a module around it"
)


def find_difference(supernet: ModelSpace, path: Path, network: nn.Module, images: Tensor) -> str:
    """Return in words how a supernet differs from the network of a path; ``""`` if it does not.

    Compared are names, sizes and ties of tensors, which of them have gradients, initial values
    that are all the same, and the logits and gradients of a batch.

    Parameters
    ----------
    supernet
        On the device of the images. Its path, gradients and mode are changed, its weights are not.
    path
        Label to choice.
    network
        As the space's constructor builds it for the path, on the same device; its weights are
        overwritten.
    images
        Shape (N, C, H, W).

    Raises whatever the networks raise.
    """
    subnet = extract_subnet(supernet, path)
    if difference := _compare_tensors(subnet, network):
        return f"{difference}. {_CONSTRUCTOR}"
    network.load_state_dict(subnet.state_dict())
    set_path(choice_units(supernet), path)
    models = network, subnet, supernet
    own, extracted, shared = (functools.partial(_run, images, model, {}) for model in models)
    outputs = own(torch.float32, 0)
    try:
        with without_path(supernet):
            is_other = differ(own, extracted, outputs)
        is_other = is_other or differ(_in_total(own), _in_total(shared), outputs[:3])
    except Exception as problem:
        return f"it fails where that runs ({one_line(str(problem)):.200}). {_UNITS}"
    if is_other:
        return f"the same weights give other logits or other gradients. {_UNITS}"
    return ""


def _run(
    images: Tensor, network: nn.Module, precise: dict[str, nn.Module], dtype: torch.dtype, seed: int
) -> Outputs:
    """Return logits in both modes, the size of all gradients together, and gradients by name."""
    model = network
    if dtype is torch.float64:
        model = precise.setdefault("", copy_values(network).double())
    with kept_generators(images.device), kept_buffers(model):
        seed_generators(seed, images.device)
        outputs = train_once(model, images.to(dtype))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    norms = [gradient.double().norm() for gradient in gradients.values() if gradient is not None]
    total = torch.stack(norms).norm() if norms else None
    return [outputs[0], outputs[-1], total, *(gradients[name] for name in sorted(gradients))]


def _in_total(run: RunOfType) -> RunOfType:
    """Leave out the gradients by name, of which supernets have others."""
    return lambda dtype, seed: run(dtype, seed)[:3]


def _compare_tensors(subnet: nn.Module, network: nn.Module) -> str:
    for kind in ("parameters", "buffers"):
        ours, theirs = (_named(model, kind) for model in (subnet, network))
        for name in (*theirs, *ours):
            if name not in ours:
                return f"a copy of the supernet's layers lacks '{name}'"
            if name not in theirs:
                return f"only the supernet has '{name}'"
            one, other = ours[name], theirs[name]
            if one.shape != other.shape:
                return f"'{name}' has the sizes {tuple(one.shape)}, not {tuple(other.shape)}"
            if one.requires_grad != other.requires_grad:
                asked = "only in the supernet" if one.requires_grad else "not in the supernet"
                return f"'{name}' is trained {asked}"
            if kind == "parameters" and _is_constant(other) and not torch.equal(one, other):
                value = float(other.flatten()[0])
                return f"'{name}' begins with {value:g} everywhere, and in the supernet it does not"
        ties = [_ties(tensors) for tensors in (ours, theirs)]
        if ties[0] != ties[1]:
            name = next(name for name in ours if ties[0][name] != ties[1][name])
            other_name = max(ties[0][name], ties[1][name])
            return f"'{name}' and '{other_name}' are the same tensor in one of both only"
    return ""


def _named(model: nn.Module, kind: str) -> dict[str, Tensor]:
    return dict(getattr(model, f"named_{kind}")(remove_duplicate=False))


def _ties(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return for each name the first one of the same tensor."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}


def _is_constant(tensor: Any) -> bool:
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())
