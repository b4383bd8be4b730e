"""One supernet for the trials on all machines.

Where trials run elsewhere, the tuner puts the digest of its supernet, and of all else that decides
scores, into the experiment's folder ``log``, which NNI's manager serves. Every trial compares. A
machine without the supernet fetches it from there, once, and uses it only if its digest is right.

Neither side imports PyTorch or NNI.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, BinaryIO

from nni_spos.errors import CheckpointError, ExperimentError
from nni_spos.experiment.manager import Manager
from nni_spos.files.atomic import write_atomically, write_json
from nni_spos.files.digests import digest_file, digest_weights
from nni_spos.files.locks import exclusive
from nni_spos.recipe.identity import Result, describe
from nni_spos.recipe.recipe import Recipe
from nni_spos.search.kept_supernets import keep_supernet
from nni_spos.values import differing, shown

DESCRIPTION_NAME = "supernet.json"
"""Name of what the tuner says about its supernet, in the folder ``log``."""

CHECKPOINT_NAME = "supernet.pt"
"""Name of the supernet in the folder ``log``, a link to it."""


def publish_supernet(recipe: Recipe, folder: FilePath) -> None:
    """Let the trials on other machines know the tuner's supernet, if it is trained.

    Parameters
    ----------
    recipe
        Of the experiment.
    folder
        The experiment's folder ``log``.
    """
    if not recipe.checkpoint.exists():
        return  # trials of the user's own may do without
    recipe = keep_supernet(recipe)
    link = folder / CHECKPOINT_NAME
    link.unlink(missing_ok=True)
    link.symlink_to(recipe.checkpoint)
    description = {
        "sha256": digest_file(recipe.checkpoint),
        "num_bytes": recipe.checkpoint.stat().st_size,
        "weights": digest_weights(recipe.checkpoint),
        "settings": describe(Result.MACHINES, recipe),
    }
    write_json(folder / DESCRIPTION_NAME, description)


def ensure_shared_supernet(recipe: Recipe, manager: Manager) -> Recipe:
    """Return a recipe, in a trial on another machine, with the tuner's supernet.

    If it is not there, it is fetched; trials that start together fetch it once. Another supernet
    of this machine stays where it is, see `nni_spos.search.kept_supernets`.

    Parameters
    ----------
    recipe
        As it is on this machine.
    manager
        NNI's manager.

    Raises
    ------
    CheckpointError
        The tuner has no supernet, what arrives is not the tuner's, or it was written into.
    ExperimentError
        The recipe or this package differs from the tuner's, or the manager cannot be reached.
    """
    description = _read_description(manager)
    here_now = describe(Result.MACHINES, recipe)
    for name, here, there in differing(here_now, description["settings"]):
        raise ExperimentError(
            f"{_here(recipe.file)}: this machine and the tuner's do not agree: {name} is "
            f"{shown(here)} here and {shown(there)} there."
        )
    weights = description["weights"]
    kept = dataclasses.replace(recipe, kept=weights)
    file = kept.checkpoint
    if not file.exists():
        refusal = ExperimentError(f"{file}: is being fetched by another process.")
        with exclusive(recipe.files.fetch_lock, timeout=-1, refusal=refusal):
            if not file.exists() and not _is_here(recipe, weights):
                _fetch(file, description, manager)
    digest = digest_weights(file)
    if digest != weights:
        raise CheckpointError(
            f"{_here(file)}: is another supernet (weights {digest}) than the tuner's ({weights}). "
            "Delete it here, then it is fetched."
        )
    return kept


def _is_here(recipe: Recipe, weights: str) -> bool:
    """Whether this machine's own supernet is the tuner's; then it is kept."""
    if digest_weights(recipe.checkpoint) != weights:
        return False
    try:
        return keep_supernet(recipe).kept == weights
    except CheckpointError:  # only its weights are whole
        return False


def _read_description(manager: Manager) -> Mapping[str, Any]:
    content = manager.read_log(DESCRIPTION_NAME)
    if content is None:
        raise CheckpointError(
            "the tuner had no supernet when the experiment started. Train it on the manager's "
            "machine first: nni-spos train RECIPE."
        )
    kinds = {"sha256": str, "num_bytes": int, "weights": str, "settings": dict}
    if (
        not isinstance(content, dict)
        or not all(isinstance(content.get(key), kind) for key, kind in kinds.items())
        or not content["weights"].isalnum()
    ):
        raise CheckpointError(f"{manager.url}/logs/{DESCRIPTION_NAME}: is damaged.")
    return content


def _fetch(file: FilePath, description: Mapping[str, Any], manager: Manager) -> None:
    """Copy the tuner's supernet to `file`; what is not complete and right is never there."""

    def write(stream: BinaryIO) -> None:
        digest = hashlib.sha256()
        for block in manager.download_log(CHECKPOINT_NAME, description["num_bytes"]):
            digest.update(block)
            stream.write(block)
        if digest.hexdigest() != description["sha256"]:
            raise CheckpointError(
                f"{_here(file)}: what {manager.url} sent is not the supernet that the experiment "
                f"started with (SHA-256 {digest.hexdigest()} instead of {description['sha256']})."
            )

    write_atomically(file, write)
    print(f"fetched {file} from {manager.url}")


def _here(file: FilePath) -> str:
    return f"{platform.node()}: {file}"
