"""What every format has in common that a network is exported to."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from nni_spos.errors import ExportError
from nni_spos.export.images import InputImages

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
Run = Callable[[Array], Array]
"""From images, shape (N, channels, height, width), to outputs, shape (N, ...)."""


@dataclass(frozen=True)
class ExportForm:
    """How a network is to be exported, whatever the format.

    Parameters
    ----------
    batch
        Images at a time; None: any number.
    folded
        Whether each BatchNorm becomes a part of the convolution before it.
    takes_pixels
        Whether it takes pixels as whole numbers, and normalises them itself.
    """

    batch: int | None = None
    folded: bool = True
    takes_pixels: bool = False


@dataclass(frozen=True)
class Model:
    """A network that is to be exported.

    Parameters
    ----------
    network
        In evaluation mode, prepared as `form` says; nobody else has it.
    images
        What it takes.
    form
        How it is to be exported.
    configuration
        Plain values that rebuild the network, for formats of weights alone.
    calibration
        Yields training images as the network takes them; None where there are none.
    """

    network: nn.Module
    images: InputImages
    form: ExportForm = ExportForm()
    configuration: Mapping[str, Any] = field(default_factory=dict)
    calibration: Callable[[], Iterator[Array]] | None = None

    def calibration_batches(self) -> Iterator[Array]:
        """Yield training images as the exported network takes them; only with `calibration`."""
        assert self.calibration is not None
        for images in self.calibration():
            given = self.images.pixels_of(images) if self.form.takes_pixels else images
            size = self.form.batch or len(given)
            # Images that do not fill a batch begin again from the first one.
            for start in range(0, len(given), size):
                yield given[np.arange(start, start + size) % len(given)]

    def example(self, number: int) -> Array:
        """Return random images of the type that the exported network takes."""
        values = self.images.random(number)
        return self.images.pixels_of(values) if self.form.takes_pixels else values


class Exporter(ABC):
    """A format that a network is written in.

    A class derived from this one is a frozen dataclass. Its keys are its fields that
    `nni_spos.recipe.settings.setting` makes. Importing its module needs neither PyTorch nor the
    packages of the format; its methods do.
    """

    file: ClassVar[str]
    """The file that holds the network, in the folder."""

    packages: ClassVar[tuple[str, ...]] = ()
    """What must be importable."""

    extra: ClassVar[str] = ""
    """The extra of this package that installs these."""

    is_graph: ClassVar[bool] = True
    """Whether what is computed is written too, and not weights alone."""

    program: ClassVar[str] = ""
    """Lines of Python that define ``run``, from an array of images to an array of outputs; HERE is
    the folder. Without them there is no ``predict.py``."""

    imports: ClassVar[str] = ""
    """What those lines import."""

    needs: ClassVar[tuple[str, ...]] = ()
    """What ``predict.py`` needs beside NumPy and Pillow, as pip calls it."""

    @property
    def is_exact(self) -> bool:
        """Whether outputs are those of the network up to rounding."""
        return True

    @abstractmethod
    def write(self, model: Model, folder: FilePath) -> None:
        """Write the network into a folder.

        Raises
        ------
        ExportError
            The format cannot have it.
        """

    @abstractmethod
    def open(
        self, folder: FilePath, threads: int | None = None, network: nn.Module | None = None
    ) -> Run:
        """Return what runs the network of a folder, in the runtime of the format.

        Parameters
        ----------
        folder
            With what `write` wrote.
        threads
            Of the runtime for one operator; None: its own number.
        network
            The network that was written, which formats of weights alone put these into.
        """

    def check(self, form: ExportForm) -> None:
        """Refuse what cannot be written, before anything is opened. Raises ExportError."""
        check_packages(self.packages, self.extra, f"format {type(self).__name__}")
        if not self.is_graph and form != ExportForm():
            raise ExportError(
                "this format has the weights as they are: leave out --static, --uint8 and "
                "--no-fold, or export to onnx or torch."
            )


def check_packages(packages: tuple[str, ...], extra: str, what: str) -> None:
    """Refuse what needs packages that are not installed. Raises ExportError."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        advice = f"pip install 'nni_spos[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        raise ExportError(f"{what}: needs {' and '.join(missing)}. Install it: {advice}.")


def as_array(values: Any) -> Array:
    """Return a tensor of any library as an array."""
    return np.asarray(values)
