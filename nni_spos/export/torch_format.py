"""PyTorch's own file of a program: ``torch.export``'s .pt2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, ClassVar

from nni_spos.errors import ExportError, text_of
from nni_spos.export.base import Exporter, Model, Run

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class TorchExporter(Exporter):
    """A program that PyTorch runs without the code of the network."""

    file: ClassVar[str] = "model.pt2"
    needs: ClassVar[tuple[str, ...]] = ("torch",)
    imports: ClassVar[str] = "import torch"
    program: ClassVar[str] = (
        'network = torch.export.load(HERE / "model.pt2").module()\n'
        "\n"
        "\n"
        "def run(images):\n"
        "    with torch.no_grad():\n"
        "        return network(torch.from_numpy(images)).numpy()"
    )

    def write(self, model: Model, folder: FilePath) -> None:
        """Write ``model.pt2``. Raises ExportError."""
        import torch

        from nni_spos.export.tracing import quiet, trace

        program = trace(model)
        try:
            with quiet():
                torch.export.save(program, folder / self.file)
        except OSError:
            raise
        except Exception as problem:
            raise ExportError(
                f"the program of the network cannot be written ({text_of(problem):.300})."
            ) from problem

    def open(
        self, folder: FilePath, threads: int | None = None, network: nn.Module | None = None
    ) -> Run:
        """Return what runs ``model.pt2`` in PyTorch."""
        from nni_spos.export.runtimes import open_torch

        return open_torch(folder / self.file, threads)
