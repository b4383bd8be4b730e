"""Depth as a choice: NNI's ``Repeat`` in a supernet, and which depths its choices lead to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

# NNI's two packages import each other: with oneshot first, nni.nas.strategy would hold stand-ins
# that only fail.
import nni.nas.strategy  # noqa: F401
from nni.mutable import Mutable
from nni.nas.nn.pytorch import Repeat
from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
from torch import nn

from nni_spos.path import Choice


class SampledRepeat(Repeat, BaseSuperNetModule):
    """A ``Repeat`` that runs as many of its blocks as the path says.

    NNI's own form fails at the depth 0 and is another object than the one in the space.
    """

    _sampled: int | None

    @classmethod
    def mutate(
        cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]
    ) -> nn.Module | None:
        """Let a ``Repeat`` follow paths, in place: a mutation hook of NNI."""
        if type(module) is not Repeat or not isinstance(module.depth_choice, Mutable):
            return None
        module.__class__ = cls
        module._sampled = None
        return module

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Follow the path in `memo`; labels that it does not have are drawn by NNI's generator."""
        missing = self.export(memo)
        self._sampled = depth_at(self, {**memo, **missing})
        return missing

    def export(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Return a random choice for each label that `memo` does not have, as NNI's layers do."""
        space: Any = self.depth_choice
        return {x: one.random() for x, one in space.simplify().items() if x not in memo}

    def forward(self, x: Any) -> Any:
        if self._sampled is None:
            raise RuntimeError("a path must be set before a supernet runs.")
        for block in itertools.islice(self.blocks, self._sampled):
            x = block(x)
        return x


def depth_at(repeat: Repeat, path: Mapping[str, Choice]) -> int:
    """Return how many blocks a path has."""
    depth: Any = repeat.depth_choice
    return depth.freeze(dict(path)) if isinstance(depth, Mutable) else depth


def depths_of(
    repeat: Repeat, decided: Mapping[str, Choice]
) -> Iterator[tuple[dict[str, Choice], int]]:
    """Yield every combination of the choices that a depth depends on, and the depth.

    Parameters
    ----------
    repeat
        The repeated blocks.
    decided
        Choices of labels that are made already; the depth follows them.
    """
    depth: Any = repeat.depth_choice
    found = depth.simplify() if isinstance(depth, Mutable) else {}
    choices: dict[str, Any] = {str.__str__(label): one.values for label, one in found.items()}
    choices |= {label: [decided[label]] for label in choices if label in decided}
    for values in itertools.product(*choices.values()):
        sample = dict(zip(choices, values, strict=True))
        yield sample, depth_at(repeat, sample)
