"""How much the loss of some batches would change without each weight, to first order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from nni_spos.errors import SpaceError, text_of

Loss = Callable[[Any, Any], Tensor]
"""From a network's outputs and the targets of a batch to a number."""

ADVICE = (
    "Give batches of (inputs, targets), such as a data loader, and a loss of outputs and targets."
)


def weight_effects(network: nn.Module, calibration: Iterable[Any], loss: Loss) -> dict[str, Tensor]:
    """Return the mean over batches of (gradient x weight) squared, by name of the parameter.

    Parameters
    ----------
    network
        In evaluation mode; it is not changed.
    calibration
        Batches (inputs, targets). Inputs are a tensor, or a tuple of positional arguments.
    loss
        Of outputs and targets, a number.

    Returns
    -------
    Tensors of the parameters' shapes, float64, on the CPU.

    Raises
    ------
    SpaceError
        There are no batches, one does not fit, or the loss is not a finite number.

    References
    ----------
    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, section 3.1.
    """
    copied = copy.deepcopy(network).requires_grad_(True)
    found = {
        name: torch.zeros(x.shape, dtype=torch.float64) for name, x in copied.named_parameters()
    }
    number = 0
    for batch in calibration:
        copied.zero_grad(set_to_none=True)
        _value(copied, batch, loss).backward()
        for name, parameter in copied.named_parameters():
            if parameter.grad is not None:
                effect = parameter.detach().double() * parameter.grad.double()
                found[name] += effect.square().cpu()
        number += 1
    if not number:
        raise SpaceError(f"convert: calibration has no batches. {ADVICE}")
    return {name: total / number for name, total in found.items()}


def _value(network: nn.Module, batch: Any, loss: Loss) -> Tensor:
    """Return the loss of a batch. Raises SpaceError."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise SpaceError(f"convert: a batch of calibration is a {type(batch).__name__}. {ADVICE}")
    inputs, targets = batch
    try:
        with torch.enable_grad():
            value = loss(network(*(inputs if isinstance(inputs, tuple) else (inputs,))), targets)
    except Exception as problem:  # the code of others
        raise SpaceError(
            f"convert: a batch of calibration does not run ({text_of(problem)}). {ADVICE}"
        ) from problem
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        raise SpaceError(f"convert: the loss of calibration is no number to derive. {ADVICE}")
    if not bool(torch.isfinite(value).all()):
        raise SpaceError("convert: the loss of a batch of calibration is not finite.")
    return value.reshape(())
