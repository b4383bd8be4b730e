"""One path's network out of a supernet."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from nni_spos.path import Choice, PathSpace


def extract_subnet(supernet: ModelSpace, path: Mapping[str, Choice]) -> nn.Module:
    """Return the network of a path with a copy of the supernet's weights and statistics.

    Parameters
    ----------
    supernet
        A model space with weights, mutated by a one-shot strategy or not; it is not changed.
    path
        Label to choice, for every label of the space.

    Raises
    ------
    PathError
        The path is not one of the space.
    """
    path = PathSpace.from_model_space(supernet).validate(path)
    # NNI's freeze shares storage with the supernet; recalibration would write into it.
    return copy.deepcopy(supernet.freeze(path))
