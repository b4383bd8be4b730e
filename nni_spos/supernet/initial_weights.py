"""The weights of a file as those that a supernet begins with, as far as they fit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from torch import Tensor, nn

from nni_spos.conversion.sources import read_state_dict, without_wrapper
from nni_spos.errors import CheckpointError, one_line
from nni_spos.files.tensors import is_loadable, name_not_finite
from nni_spos.training.techniques.few_shot import names_of_one_copy

FEW = 3
"""Names that are shown of those that do not fit."""

_OF_BITS = re.compile(r"\.sets\.(\d+w)?\d+a(?=\.)")
"""What `nni_spos.mutables.SwitchableBatchNorm2d` adds to the names of a plain BatchNorm."""


@dataclass(frozen=True)
class Fit:
    """Which weights of a file fit a supernet.

    Parameters
    ----------
    file
        Of the weights.
    weights
        Those that fit, by their names in the supernet.
    missing
        Names in the supernet that the file does not have, or has with another shape or kind.
    unused
        Names in the file that the supernet does not take.
    """

    file: FilePath
    weights: Mapping[str, Tensor]
    missing: Sequence[str]
    unused: Sequence[str]

    def describe(self) -> str:
        """Return one line about what does not fit; "" if everything does."""
        if not self.missing and not self.unused:
            return ""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} begin as without it ({_few(self.missing)})")
        if self.unused:
            parts.append(f"{len(self.unused)} of the file are not used ({_few(self.unused)})")
        return (
            f"{self.file}: {len(self.weights)} tensors of the supernet begin with those of the "
            f"file; {' and '.join(parts)}."
        )


def fit_weights(network: nn.Module, file: str | os.PathLike[str]) -> Fit:
    """Return the weights of a file that a supernet can begin with; it is not changed.

    A tensor fits one of the same name, shape and kind. Where BatchNorm has tensors for each of
    several bit widths, or few_shot has copies, and the file has them once, they fit all of these.

    Parameters
    ----------
    network
        The supernet.
    file
        A supernet or a network of ours, of the same space with other choices, or a state dict.
        Nothing in it is executed.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code or holds no weights, nothing in it fits, or a
        weight that fits is not finite.
    """
    file = FilePath(file)
    expected = network.state_dict()
    found = without_wrapper(read_state_dict(file), expected)
    single = names_of_one_copy(network)
    sources = {
        name: _source((name, single.get(name, name)), tensor, found)
        for name, tensor in expected.items()
    }
    weights = {name: found[source] for name, source in sources.items() if source}
    if all(name.endswith("num_batches_tracked") for name in weights):
        ours, theirs = (next(iter(names), "none") for names in (expected, found))
        raise CheckpointError(
            f"{file}: none of its {len(found)} tensors fits the supernet. The first name in it is "
            f"'{one_line(theirs)}', and in the supernet '{ours}'. Name a file of the same space "
            "with other choices, or leave out supernet.initial_weights."
        )
    if name := name_not_finite(network, weights):
        raise CheckpointError(f"{file}: its weight '{sources[name]}' is not finite.")
    used = set(sources.values())
    return Fit(
        file=file,
        weights=weights,
        missing=[name for name in expected if name not in weights],
        unused=[name for name in found if name not in used],
    )


def begin_with(network: nn.Module, file: str | os.PathLike[str]) -> None:
    """Give a supernet what fits of a file. Raises CheckpointError, see `fit_weights`."""
    network.load_state_dict(fit_weights(network, file).weights, strict=False)


def _source(names: Sequence[str], tensor: Tensor, found: Mapping[str, Tensor]) -> str:
    """Return the first of some names of what fits in the file; "" for nothing."""
    names = (*names, *(_OF_BITS.sub("", name) for name in names))
    return next((x for x in names if x in found and is_loadable(found[x], tensor)), "")


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{', '.join(map(one_line, names[:FEW]))}{more}"
