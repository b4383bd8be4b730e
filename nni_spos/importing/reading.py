"""Read weights that others trained, and write them as a supernet or a network of ours."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor, nn

from nni_spos.errors import CheckpointError, RecipeError, SposError, unknown
from nni_spos.files.others_weights import load_others_weights
from nni_spos.files.tensors import is_loadable, name_not_finite
from nni_spos.importing.layouts import LAYOUTS, Layout, Weights
from nni_spos.path import Path, PathSpace
from nni_spos.profilers import count_macs
from nni_spos.recipe.data_settings import BGR, NOT_NORMALISED
from nni_spos.retraining.network import SpaceArguments, TrainedNetwork, save_network
from nni_spos.spaces import PUBLISHED, Form, build_space, default_input_shape
from nni_spos.supernet.checkpoint import save_supernet
from nni_spos.supernet.strategy import SinglePathOneShot
from nni_spos.values import shown

CROP_PCT = 0.875
"""Share of an image's shorter side that is cropped, 224 of 256 pixels."""


@dataclass(frozen=True)
class Imported:
    """What was read, and written.

    Parameters
    ----------
    file
        What was written.
    title
        What the file that was read holds.
    space
        Name of the space, and its arguments that are not its defaults, as in a recipe.
    num_classes, channels
        Of the images.
    data
        Keys that a recipe's section ``data`` needs, so that images are prepared as these weights
        need them; empty if nothing is known of it.
    path
        Of a network; None for a supernet.
    """

    file: FilePath
    title: str
    space: Mapping[str, Any]
    num_classes: int
    channels: int
    data: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None


def import_weights(
    file: str | os.PathLike[str],
    name: str,
    output: str | os.PathLike[str],
    arguments: Mapping[str, Any] | None = None,
) -> Imported:
    """Write weights that others trained as a file of ours.

    Supernets become what ``nni-spos train`` writes: where that is expected, ``OUTPUT/supernet.pt``,
    a search starts at once. The weights of one network become what ``nni-spos retrain`` writes;
    its path is found by the shapes.

    Parameters
    ----------
    file
        The checkpoint of the supernet of Single Path One-Shot's authors, or a state dict of a
        supernet or a network of NNI's hub, of its ``ShuffleNetSpace`` or ``ProxylessNAS``.
        Nothing in it is executed.
    name
        The space that it is read as, such as shufflenet, or a published network, such as
        shufflenet-spos.
    output
        Where to; what is there is replaced.
    arguments
        Of the space that are not its defaults, such as widths.

    Raises
    ------
    RecipeError
        There is no such space or network, or it takes other arguments.
    CheckpointError
        The file is missing, damaged, would run code, or holds something else; the message names
        what is there and what should be. Nothing is written.
    """
    network = PUBLISHED.get(name)
    space = name if network is None else network.space
    if space not in LAYOUTS:
        known = [*LAYOUTS, *(x for x, one in PUBLISHED.items() if one.space in LAYOUTS)]
        raise RecipeError(unknown("name", name, known))
    weights = load_others_weights(file)
    reader = _WeightsReader(file, space, dict(arguments or {}), weights)
    path = reader.find_path()
    if network is not None and path != network.path:
        found = (
            "of a supernet" if path is None else f"of the path {' '.join(map(str, path.values()))}"
        )
        raise CheckpointError(
            f"{file}: its weights are {found}, and not of {name}. Use --as {space}."
        )
    return reader.write_supernet(output) if path is None else reader.write_network(path, output)


class _WeightsReader:
    """Reads one file as one space."""

    def __init__(
        self,
        file: str | os.PathLike[str],
        space: str,
        arguments: Mapping[str, Any],
        weights: Weights,
    ):
        self._file = file
        self._weights = weights
        self._layout = _find_layout(file, space, weights)
        self._num_classes = self._size(f"{self._layout.classifier}.weight", 2, 0)
        self._channels = self._size(f"{self._layout.stem}.weight", 4, 1)
        self._space = space
        self._arguments = dict(arguments)
        self._is_affine = f"{self._layout.stem.removesuffix('0')}1.weight" in weights

    def find_path(self) -> Path | None:
        """Return the path of a network, None of a supernet. Raises CheckpointError."""
        if self._layout.find_path is None:
            return None
        try:
            return self._layout.find_path(self._weights)
        except CheckpointError as problem:
            raise CheckpointError(f"{self._file}: {problem}") from None

    def write_supernet(self, output: str | os.PathLike[str]) -> Imported:
        """Write the weights as ``nni-spos train`` does. Raises CheckpointError."""
        arguments = self._with_affine(Form.SUPERNET)
        with torch.device("meta"):
            space = build_space(
                self._space,
                arguments,
                Form.SUPERNET,
                num_classes=self._num_classes,
                in_channels=self._channels,
            )
        supernet = SinglePathOneShot().mutate_model(space)
        self._load(supernet)
        images = self._layout.describe_images(self._num_classes, self._channels)
        save_supernet(output, supernet, images)
        return self._imported(output, arguments)

    def write_network(self, path: Path, output: str | os.PathLike[str]) -> Imported:
        """Write the weights of a path as ``nni-spos retrain`` does. Raises CheckpointError."""
        arguments = self._with_affine(Form.SUBNET)
        with torch.device("meta"):
            space = build_space(
                self._space,
                arguments,
                Form.SUBNET,
                num_classes=self._num_classes,
                in_channels=self._channels,
            )
            self._check_path(space, path)
            shape = default_input_shape(space)
            made_from = SpaceArguments(
                self._space, arguments, self._num_classes, self._channels, shape[1]
            )
            network = made_from.build(path)
        self._load(network)
        images = self._layout.describe_images(self._num_classes, self._channels)
        size = {"image_size": shape[1], "eval_resize": round(shape[1] / CROP_PCT)}
        trained = TrainedNetwork(
            network=network.eval(),
            path=path,
            costs={
                "flops": count_macs(network, shape),
                "params": sum(parameter.numel() for parameter in network.parameters()),
            },
            settings={},
            preprocessing={**images, **size, "interpolation": "bilinear"},
            space=made_from,
        )
        save_network(output, trained)
        return dataclasses.replace(self._imported(output, arguments), path=path)

    def _with_affine(self, form: Form) -> dict[str, Any]:
        """Return the arguments, with `affine` where the form has another default."""
        is_default = self._is_affine is (form is Form.SUBNET)
        return {**self._arguments, **({} if is_default else {"affine": self._is_affine})}

    def _imported(self, output: str | os.PathLike[str], arguments: Mapping[str, Any]) -> Imported:
        given = self._layout.preprocessing
        data: dict[str, Any] = {}
        if given.get("channel_order") == BGR:
            data = {"channel_order": BGR, "normalisation": NOT_NORMALISED}
        elif given:
            data = {"mean": given["mean"], "std": given["std"]}
        return Imported(
            file=FilePath(output),
            title=self._layout.title,
            space={"name": self._space, **arguments},
            num_classes=self._num_classes,
            channels=self._channels,
            data=data,
        )

    def _size(self, name: str, dimensions: int, position: int) -> int:
        """Return a size of a weight that says how the space is built. Raises CheckpointError."""
        tensor = self._weights.get(name)
        if tensor is None or tensor.dim() != dimensions or not tensor.numel():
            raise CheckpointError(
                f"{self._file}: is not {self._layout.title}: '{name}' has {_shape(tensor)} in it, "
                f"and must have {dimensions} dimensions."
            )
        return tensor.shape[position]

    def _check_path(self, space: ModelSpace, path: Path) -> None:
        try:
            PathSpace.from_model_space(space).validate(path)
        except SposError as problem:
            raise CheckpointError(
                f"{self._file}: is not {self._layout.title} of {self._space}: {problem}"
            ) from None

    def _load(self, network: nn.Module) -> None:
        """Give a network on the meta device the weights of the file. Raises CheckpointError."""
        expected = network.state_dict()
        theirs = {name: self._layout.theirs(name) for name in expected}
        counters = {
            name: torch.zeros(tensor.shape, dtype=tensor.dtype)
            for name, tensor in expected.items()
            # Older PyTorch did not count batches.
            if name.endswith("num_batches_tracked") and theirs[name] not in self._weights
        }
        wanted = {theirs[name]: x for name, x in expected.items() if name not in counters}
        self._check_weights(wanted)
        weights = {
            name: self._weights[theirs[name]].to(tensor.dtype).clone()
            for name, tensor in expected.items()
            if name not in counters
        }
        if name := name_not_finite(network, weights):
            raise CheckpointError(f"{self._file}: the weight '{theirs[name]}' is not finite.")
        network.load_state_dict({**weights, **counters}, assign=True)

    def _check_weights(self, wanted: Weights) -> None:
        """Refuse names or shapes that the space does not have. Raises CheckpointError."""
        names = dict.fromkeys(itertools.chain(wanted, self._weights))
        wrong = [
            name
            for name in names
            if name not in wanted or not is_loadable(self._weights.get(name), wanted[name])
        ]
        if not wrong:
            return
        found, needed = (_shape(x.get(wrong[0])) for x in (self._weights, wanted))
        others = f" {len(wrong) - 1} other names do not fit either." if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{self._file}: is not {self._layout.title} of {self._space}: {shown(wrong[0])} has "
            f"{found} in it, and {needed} in the space.{others}"
        )


def _find_layout(file: str | os.PathLike[str], space: str, weights: Weights) -> Layout:
    """Return how a file names the weights of a space. Raises CheckpointError."""
    for layout in LAYOUTS[space]:
        if layout.fits(weights):
            return layout
    others = [name for name, known in LAYOUTS.items() if any(x.fits(weights) for x in known)]
    if others:
        raise CheckpointError(
            f"{file}: its weights are not those of {space}, but of one of {', '.join(others)}. "
            f"Use --as {others[0]}, for example."
        )
    name, tensor = next(iter(weights.items()))
    titles = ", ".join(layout.title for layout in LAYOUTS[space])
    raise CheckpointError(
        f"{file}: holds none of those that can be read as {space} ({titles}). Its first weight is "
        f"{shown(name)} of {_shape(tensor)}."
    )


def _shape(tensor: Tensor | None) -> str:
    return "no tensor" if tensor is None else f"shape {tuple(tensor.shape)}"
