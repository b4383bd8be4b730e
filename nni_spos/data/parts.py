"""The parts of a data set of PyTorch's kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DatasetParts:
    """Map-style data sets; those that are not for training are made when they are needed."""

    train: Any
    validation: Callable[[], Any] | None = None
    test: Callable[[], Any] | None = None
