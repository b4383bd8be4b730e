"""A trained supernet in a file: weights, the space they belong to, and how images were prepared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from nni_spos.errors import CheckpointError, NotFiniteError, PathError
from nni_spos.files.digests import digest_open_weights
from nni_spos.files.tensors import inspect_tensors, is_loadable, name_not_finite, replace_tensors
from nni_spos.path import PathSpace
from nni_spos.process.stage_cost import StageCost
from nni_spos.values import is_plain, shown

VERSION = 1


@dataclass(frozen=True)
class SupernetCheckpoint:
    """What `load_supernet` finds in a file.

    Parameters
    ----------
    space
        Labels and their choices.
    weights
        State dict of the supernet, on the CPU.
    preprocessing
        How the training images were prepared, for `nni_spos.data.check_preprocessing`.
    made_for
        What the weights depend on, see `nni_spos.recipe.identity`; None if the file does not say.
    digest
        Of the weights in the very file that was read, see `nni_spos.files.digests.digest_weights`.
    """

    space: PathSpace
    weights: Mapping[str, Tensor]
    preprocessing: Mapping[str, Any]
    made_for: Mapping[str, Any] | None = None
    digest: str = ""


def save_supernet(
    file: str | os.PathLike[str],
    supernet: ModelSpace,
    preprocessing: Mapping[str, Any],
    cost: StageCost | None = None,
    made_for: Mapping[str, Any] | None = None,
) -> None:
    """Write a supernet, atomically: a crash leaves the file that was there before.

    Parameters
    ----------
    file
        Where to; missing folders are made.
    supernet
        A model space with weights, mutated by a one-shot strategy or not.
    preprocessing
        `ImageData.preprocessing` of the training images.
    cost
        Of the training, if it is known; `nni_spos.report` shows it.
    made_for
        What the weights depend on, see `nni_spos.recipe.identity`: a change is then noticed.

    Raises
    ------
    NotFiniteError
        A weight is not finite; nothing is written.
    """
    weights = supernet.state_dict()
    if found := name_not_finite(supernet, weights):
        raise NotFiniteError(
            f"{file}: is not written, since the weight '{found}' is not finite. Train with a lower "
            "learning_rate, with warmup_steps, or with gradient_clip."
        )
    content = {
        "supernet_version": VERSION,
        "space": PathSpace.from_model_space(supernet).to_search_space(),
        "weights": weights,
        "preprocessing": dict(preprocessing),
        "cost": None if cost is None else cost.to_json(),
        "made_for": None if made_for is None else dict(made_for),
    }
    replace_tensors(file, content)


def load_supernet(file: str | os.PathLike[str]) -> SupernetCheckpoint:
    """Read what `save_supernet` wrote; nothing in the file is executed.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, would run code, or is not a supernet's.
    """
    hint = "Train the supernet first: nni-spos train RECIPE."
    content, digest = inspect_tensors(file, digest_open_weights, hint)
    try:
        version = content["supernet_version"]
        if type(version) is not int or version != VERSION:
            raise CheckpointError(
                f"{file}: has version {shown(version)}; this is version {VERSION}."
            )
        weights, preprocessing = content["weights"], content["preprocessing"]
        made_for = content.get("made_for")
        if not all(isinstance(x, Mapping) for x in (weights, preprocessing, made_for or {})):
            raise TypeError("a part of it has another type")
        if not all(map(is_plain, (preprocessing, made_for, content["space"]))):
            raise TypeError("a part of it is not made of plain values")
        space = PathSpace.from_search_space(content["space"])
    except (KeyError, TypeError, IndexError, PathError) as problem:
        raise CheckpointError(f"{file}: is not a supernet checkpoint ({problem}).") from None
    return SupernetCheckpoint(space, weights, preprocessing, made_for, digest)


def restore_supernet(supernet: ModelSpace, checkpoint: SupernetCheckpoint) -> None:
    """Give a supernet the weights of a checkpoint.

    Raises
    ------
    CheckpointError
        The checkpoint belongs to another space, or to the same one with other layers, or a weight
        in it is not finite; the supernet is left as it was.
    """
    space = PathSpace.from_model_space(supernet)
    if space != checkpoint.space:
        labels = space.differing(checkpoint.space)
        where = f" They differ at '{labels[0]}'." if labels else " The order of labels differs."
        raise CheckpointError(f"the checkpoint belongs to another search space.{where}")
    expected = {name: tensor.shape for name, tensor in supernet.state_dict().items()}
    found = {
        name: tensor.shape if isinstance(tensor, Tensor) else None
        for name, tensor in checkpoint.weights.items()
    }
    names = dict.fromkeys([*expected, *found])
    wrong = [x for x in names if x not in expected or x not in found or expected[x] != found[x]]
    if wrong:
        raise CheckpointError(
            f"the checkpoint belongs to other layers: {shown(wrong[0])} has shape "
            f"{_shape(found.get(wrong[0]))} in it and {_shape(expected.get(wrong[0]))} in the "
            "space."
        )
    for name, tensor in supernet.state_dict().items():
        if not is_loadable(checkpoint.weights[name], tensor):
            raise CheckpointError(f"the checkpoint's weight '{name}' is of another kind.")
    if name := name_not_finite(supernet, checkpoint.weights):
        raise CheckpointError(
            f"the checkpoint's weight '{name}' is not finite. Train anew, with a lower "
            "learning_rate, with warmup_steps, or with gradient_clip."
        )
    supernet.load_state_dict(checkpoint.weights)


def _shape(shape: Any) -> str:
    return "no" if shape is None else str(tuple(shape))
