"""The path that is set in a supernet: which layers run, and with which part of their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# NNI's two packages import each other: with oneshot first, nni.nas.strategy would hold stand-ins
# that only fail.
import nni.nas.strategy  # noqa: F401
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from nni_spos.path import Choice


def choice_units(supernet: nn.Module) -> list[BaseSuperNetModule]:
    """Return the choice units of a supernet, and its layers whose arguments are choices.

    Finding them takes longer than setting a path: whoever sets many keeps what this returns. Of a
    network that is no supernet there are none.
    """
    return [module for module in supernet.modules() if isinstance(module, BaseSuperNetModule)]


def set_path(units: Iterable[BaseSuperNetModule], path: Mapping[str, Choice]) -> None:
    """Let a supernet run a path.

    Parameters
    ----------
    units
        Those of the supernet, or of the part of it that runs; see `choice_units`.
    path
        Label to choice, for every label of the units.
    """
    memo = dict(path)
    for unit in units:
        unit.resample(memo=memo)
