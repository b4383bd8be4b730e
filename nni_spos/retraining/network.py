"""A trained network of one path in a file, with everything that is known about it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import model_context
from torch import Tensor, nn

from nni_spos.data import ImageData
from nni_spos.errors import CheckpointError, NotFiniteError, SposError
from nni_spos.files.tensors import is_loadable, load_tensors, name_not_finite, replace_tensors
from nni_spos.modules.subnet import extract_subnet
from nni_spos.mutables.adoption import rebuild
from nni_spos.mutables.quantization import trust_inputs
from nni_spos.path import Choice, Path
from nni_spos.recipe.conversion_settings import CONVERTED, code_of
from nni_spos.recipe.image_size import ImageSize
from nni_spos.recipe.recipe import Recipe
from nni_spos.spaces import SPACES, Form, build_space
from nni_spos.values import is_finite, is_plain, shown

VERSION = 1


@dataclass(frozen=True)
class SpaceArguments:
    """How `nni_spos.spaces.build_space` makes the space of a network.

    Parameters
    ----------
    name, arguments
        As in a recipe.
    num_classes, in_channels, input_size
        Of the images.
    task_arguments
        What the task tells a space, see `nni_spos.tasks.base.Task.space_arguments`.
    """

    name: str
    arguments: Mapping[str, Any]
    num_classes: int
    in_channels: int
    input_size: ImageSize
    task_arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, data: ImageData) -> SpaceArguments:
        """Return how a recipe's space is made, for its data."""
        spec = data.spec
        return cls(
            recipe.space.name,
            recipe.space.portable,
            spec.num_classes,
            spec.channels,
            spec.image_size,
            dict(data.task.space_arguments(spec)),
        )

    def build(self, path: Mapping[str, Choice] | None = None) -> ModelSpace:
        """Build the space in the form for one path, or the network of a path."""
        return build_space(
            self.name,
            self.arguments,
            Form.SUBNET,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            input_size=self.input_size,
            task_arguments=self.task_arguments,
            path=path,
        )


@dataclass(frozen=True)
class TrainedNetwork:
    """A retrained path.

    Parameters
    ----------
    network
        Takes images of shape (N, in_channels, height, width), prepared as `preprocessing` says,
        and returns what the task needs, such as logits; in evaluation mode.
    path
        Label to choice.
    costs
        Metric to value, e.g. multiply-adds under ``flops``.
    settings
        How it was trained.
    preprocessing
        How the images were prepared.
    space
        How its space is built.
    test
        Figures of the task, loss and number of images on the test split; None until they were
        measured.
    cost
        Of the training, as JSON of `nni_spos.process.stage_cost.StageCost`; None if not recorded.
    made_for
        What it depends on, see `nni_spos.recipe.identity`; None if it was not recorded.
    task
        What it predicts: the task's name and its keys, as the recipe had them; None if it was not
        recorded.
    """

    network: nn.Module
    path: Path
    costs: Mapping[str, float]
    settings: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    space: SpaceArguments
    test: Mapping[str, float] | None = None
    cost: Mapping[str, Any] | None = None
    made_for: Mapping[str, Any] | None = None
    task: Mapping[str, Any] | None = None


def save_network(file: str | os.PathLike[str], trained: TrainedNetwork) -> None:
    """Write a trained network, atomically.

    Raises
    ------
    NotFiniteError
        A weight is not finite; nothing is written.
    """
    weights = trained.network.state_dict()
    if name := name_not_finite(trained.network, weights):
        raise NotFiniteError(
            f"{file}: is not written, since the weight '{name}' is not finite. Train with a lower "
            "learning_rate, with warmup_steps, or with gradient_clip."
        )
    content = {
        x.name: getattr(trained, x.name)
        for x in dataclasses.fields(TrainedNetwork)
        if x.name not in ("network", "space")
    }
    content = {name: dict(x) if isinstance(x, Mapping) else x for name, x in content.items()}
    content |= {
        "network_version": VERSION,
        "space": dataclasses.asdict(trained.space),
        "weights": weights,
    }
    replace_tensors(file, content)


def load_network(file: str | os.PathLike[str], space: ModelSpace | None = None) -> TrainedNetwork:
    """Read what ``nni-spos retrain`` wrote; nothing in the file is executed.

    Parameters
    ----------
    file
        Weights, path, costs and settings.
    space
        A space of your own, as built for one path; needed if the network was not made from a
        space of this package, since a file must not decide which code is imported.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, is not a network's, or belongs to another
        space.
    """
    file = FilePath(file)
    content = load_tensors(file, "Train it first: nni-spos retrain RECIPE --path FILE.")
    try:
        version = content["network_version"]
        if type(version) is not int or version != VERSION:
            raise CheckpointError(
                f"{file}: has version {shown(version)}; this is version {VERSION}."
            )
        if not all(is_plain(x) for name, x in content.items() if name != "weights"):
            raise TypeError("a part of it is not made of plain values")
        arguments = SpaceArguments(**content["space"])
        weights = content["weights"]
        rest = {key: content[key] for key in _PLAIN}
        rest |= {key: content.get(key) for key in ("cost", "made_for", "task")}
        given = (arguments.arguments, arguments.task_arguments)
        if not isinstance(arguments.name, str) or not all(isinstance(x, Mapping) for x in given):
            raise TypeError("its space has no name, or no arguments")
        if not all(isinstance(x, Mapping) for x in (weights, *rest.values()) if x is not None):
            raise TypeError("a part of it has another type")
        if not all(map(is_finite, [*rest["costs"].values(), *(rest["test"] or {}).values()])):
            raise TypeError("a cost or a test figure is not a number")
    except (KeyError, TypeError, IndexError, AttributeError) as problem:
        raise CheckpointError(f"{file}: is not a trained network ({problem}).") from None
    if space is None:
        if not _is_known(arguments):
            raise CheckpointError(
                f"{file}: was made from the space {shown(arguments.name)}, which is not imported "
                "on a file's word. Build it and pass it as 'space'."
            )
        with torch.device("meta"):  # nothing is allocated yet for what a file may ask for
            _check_weights(file, _build(file, arguments), rest["path"], weights)
        space = _build(file, arguments)
    network = _restore(file, space, rest["path"], weights)
    return TrainedNetwork(network=network, space=arguments, **rest)


def _is_known(arguments: SpaceArguments) -> bool:
    """Whether a space can be built without a user's code."""
    if arguments.name != CONVERTED:
        return arguments.name in SPACES.ours
    try:
        return code_of(arguments.arguments) is None
    except (KeyError, TypeError):
        return False


_PLAIN = ("path", "costs", "settings", "preprocessing", "test")


def _build(file: FilePath, arguments: SpaceArguments) -> ModelSpace:
    try:
        return arguments.build()
    except Exception as problem:  # the arguments are whatever the file says
        reason = problem if isinstance(problem, SposError) else repr(problem)
        raise CheckpointError(f"{file}: its space cannot be built ({reason}).") from None


def _check_weights(
    file: FilePath, space: ModelSpace, path: Mapping[str, Choice], weights: Mapping[str, Tensor]
) -> nn.Module:
    """Return the network of a path, to which the weights fit. Raises CheckpointError."""
    try:
        network = extract_subnet(space, path)
    except SposError as problem:
        raise CheckpointError(f"{file}: belongs to another space ({problem}).") from None
    misfit = _misfit(network, weights)
    if not misfit:
        return network
    # A path's own constructor can do to a layer what its place in a space does not show.
    rebuilt = rebuild(space, model_context(dict(path)))
    if rebuilt is not None and not _misfit(rebuilt, weights):
        return rebuilt
    raise CheckpointError(f"{file}: belongs to another space ({misfit}).")


def _misfit(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Return which weight does not fit, and why; ``""`` if all do."""
    expected = network.state_dict()
    for name in (*expected, *weights):
        if (name in expected) != (name in weights):
            return f"{'Missing' if name in expected else 'Unknown'} key: {shown(name)}"
    for name, tensor in expected.items():
        if isinstance(tensor, Tensor) and not is_loadable(weights[name], tensor):
            return f"the weight '{name}' has another shape or kind"
    return ""


def _restore(
    file: FilePath, space: ModelSpace, path: Mapping[str, Choice], weights: Mapping[str, Tensor]
) -> nn.Module:
    network = _check_weights(file, space, path, weights)
    if name := name_not_finite(network, weights):
        raise CheckpointError(f"{file}: its weight '{name}' is not finite. Train it anew.")
    network.load_state_dict(weights)
    trust_inputs(network)
    return network.eval()
