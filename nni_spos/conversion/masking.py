"""What a narrower network must compute: the whole one, of which no layer reads what is left out."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from nni_spos.conversion.plan import ConversionPlan
from nni_spos.path import Choice


def masked(network: nn.Module, plan: ConversionPlan, path: Mapping[str, Choice]) -> nn.Module:
    """Return a copy of a network that computes what the network of a path should.

    Its layers keep all their channels, and read those that the path leaves out with weights of
    zero. That needs no knowledge of where channels are in the narrower network.

    Parameters
    ----------
    network
        Its channels are sorted.
    plan
        What of it may be chosen.
    path
        Choices of widths; those that are missing, and all that are no widths, are the largest.
    """
    copied = copy.deepcopy(network)
    layers = dict(copied.named_modules())
    for label, width in plan.widths.items():
        choice = width.choices.index(path.get(label, width.choices[0]))
        for name in width.reads:
            layer = layers[name]
            if isinstance(layer, nn.BatchNorm2d) or getattr(layer, "groups", 1) > 1:
                continue  # what it makes of them is left out as well
            weight: torch.Tensor = layer.weight
            parts = width.numbers(name, "inputs", weight.shape[1])
            is_read = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
            is_read[parts.places(sum(parts.kept[choice]))] = True
            with torch.no_grad():
                weight[:, ~is_read] = 0
    return copied
