"""What a runtime has to do so that latencies can be measured in it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nni_spos.export.base import Array

RunImages = Callable[[Array], object]
"""Takes images, shape (N, C, H, W), and waits until their outputs are there."""


class ProfiledNetwork(ABC):
    """A network that notes at each run what its operators took."""

    @abstractmethod
    def run(self, images: Array) -> None:
        """Run it on images, shape (N, C, H, W)."""

    @abstractmethod
    def layer_runs(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Return the milliseconds of each layer, shape (num_runs,); "" for what is of no layer.

        It is called once, after the last run.
        """


class DeployedRuntime(ABC):
    """Runs networks that are written as ONNX, on the CPU.

    Attributes
    ----------
    packages
        Modules that are imported, beside onnx.
    extra
        The extra of this package that installs them.
    """

    packages: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version, for people."""

    @abstractmethod
    def open(self, content: bytes, threads: int) -> RunImages:
        """Return what runs a network of an ONNX file's content."""

    @abstractmethod
    def open_profiled(self, content: bytes, threads: int, folder: FilePath) -> ProfiledNetwork:
        """Return the same with notes, which may lie in a folder while it runs."""


def layer_of(operator: str) -> str:
    """Return the layer of an operator by its name in the ONNX file; "" if it is of none.

    >>> layer_of("/blocks/blocks.5/main/main.3/Conv")
    'blocks.5.main.3'
    >>> layer_of("/Flatten"), layer_of("Reorder")
    ('', '')
    """
    parts: list[str] = []
    for part in operator.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)
