"""Weights as safetensors, beside the configuration that rebuilds their network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, ClassVar

from nni_spos.errors import ExportError, text_of
from nni_spos.export.base import Exporter, Model, Run
from nni_spos.files.atomic import read_json, write_json
from nni_spos.values import shown

CONFIGURATION = "network.json"

if TYPE_CHECKING:
    from nni.nas.nn.pytorch import ModelSpace
    from torch import Tensor, nn


@dataclass(frozen=True)
class SafetensorsExporter(Exporter):
    """The weights as they were trained, for programs that build the network themselves."""

    file: ClassVar[str] = "model.safetensors"
    packages: ClassVar[tuple[str, ...]] = ("safetensors",)
    extra: ClassVar[str] = "safetensors"
    is_graph: ClassVar[bool] = False

    def write(self, model: Model, folder: FilePath) -> None:
        """Write ``model.safetensors``, and ``network.json`` beside it."""
        from safetensors.torch import save_file

        # Tensors of its own for each name: two names of one tensor are refused.
        weights = {
            name: tensor.detach().clone().contiguous()
            for name, tensor in model.network.state_dict().items()
        }
        save_file(weights, folder / self.file, metadata={"format": "pt"})
        write_json(folder / CONFIGURATION, dict(model.configuration))

    def open(
        self, folder: FilePath, threads: int | None = None, network: nn.Module | None = None
    ) -> Run:
        """Return what runs the weights in a copy of the network, or in one that is rebuilt."""
        from nni_spos.export.runtimes import as_run
        from nni_spos.modules.copies import copy_values

        if network is None:
            return as_run(load_safetensors(folder), threads)
        copied = copy_values(network)
        copied.load_state_dict(_read_weights(folder / self.file))
        return as_run(copied, threads)


def load_safetensors(folder: str | os.PathLike[str], space: ModelSpace | None = None) -> nn.Module:
    """Rebuild the network of a folder that was exported to safetensors; nothing is executed.

    Parameters
    ----------
    folder
        With ``model.safetensors`` and ``network.json``.
    space
        A space of your own, as built for one path; needed if the network was not made from a space
        of this package.

    Raises
    ------
    ExportError
        A file is missing or damaged, or they do not belong together.
    """
    import torch

    from nni_spos.modules.subnet import extract_subnet
    from nni_spos.spaces import SPACES, Form, build_space

    file = FilePath(folder) / CONFIGURATION
    content = read_json(file, ExportError)
    weights = _read_weights(FilePath(folder) / SafetensorsExporter.file)
    try:
        arguments = dict(content["space"])
        if space is None:
            if arguments["name"] not in SPACES.ours:
                raise ExportError(
                    f"{file}: names the space {shown(arguments['name'])}, which is not imported on "
                    "a file's word. Build it and pass it as 'space'."
                )
            with torch.random.fork_rng(devices=[]):
                space = build_space(**arguments, form=Form.SUBNET)
        network = extract_subnet(space, content["path"])
        network.load_state_dict(weights)
    except ExportError:
        raise
    except Exception as problem:  # anything may be in the place of anything
        raise ExportError(
            f"{file}: its network cannot be rebuilt ({text_of(problem):.300})."
        ) from None
    return network.eval()


def _read_weights(file: FilePath) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except Exception as problem:
        raise ExportError(f"{file}: cannot be read ({text_of(problem):.300}).") from None
