"""A space with other defaults, which has a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace


@dataclass(frozen=True)
class Preset:
    """A space with other defaults.

    Parameters
    ----------
    space
        Its class.
    defaults
        Keyword arguments that are used unless others are given.
    """

    space: type[ModelSpace]
    defaults: Mapping[str, Any]

    def __call__(self, **arguments: Any) -> ModelSpace:
        return self.space(**{**self.defaults, **arguments})
