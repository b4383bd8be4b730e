"""Checkpoints of a training that is under way: written atomically, loaded without running code."""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files import locks
from nni_spos.files.atomic import previous
from nni_spos.files.owned import check_own_file
from nni_spos.files.tensors import load_tensors, load_undamaged, save_tensors
from nni_spos.values import changes, is_plain

Identity = Mapping[str, Mapping[str, Any]]
"""What a training depends on, as JSON values in named parts, e.g. settings and preprocessing."""

KEY = "nni_spos"

LOGS = "logs"
"""Folder of TensorBoard's files, in that of the checkpoints."""

LEAST_KEPT = 2
"""Checkpoints that stay at least: should the last one be damaged, the one before it is used."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to the disk, with our rules for files."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        save_tensors(path, checkpoint)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        return load_tensors(path)


class IdentityInCheckpoints(Callback):
    """Write into every checkpoint what the training depends on."""

    def __init__(self, identity: Identity):
        self._identity = {part: dict(values) for part, values in identity.items()}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[KEY] = self._identity


def epoch_checkpoints(folder: FilePath, keep: int | None) -> ModelCheckpoint:
    """Return the callback that writes ``step_NNNNNNN.ckpt`` at the end of every epoch.

    Parameters
    ----------
    folder
        Where to.
    keep
        How many of the last ones stay, but at least `LEAST_KEPT`; None: all.
    """
    kept = -1 if keep is None else max(keep, LEAST_KEPT)
    limits = {"save_top_k": kept} if keep is None else {"save_top_k": kept, "monitor": "step"}
    return ModelCheckpoint(
        folder,
        "step_{step:07d}",
        auto_insert_metric_name=False,
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
        **limits,
    )


def last_checkpoint(folder: FilePath) -> FilePath | None:
    """Return the checkpoint of the last finished epoch in a folder, or None."""
    return max(_checkpoints(folder), default=None)


def last_undamaged(folder: FilePath) -> FilePath | None:
    """Return the checkpoint of the last finished epoch that can be read, or None without any.

    Warns
    -----
    FileWarning
        One that was written later is damaged.

    Raises
    ------
    CheckpointError
        All are damaged.
    """
    problems: list[CheckpointError] = []
    for file in sorted(_checkpoints(folder), reverse=True):
        try:
            read_identity(file)
        except CheckpointError as problem:
            problems.append(problem)
            continue
        for found in problems:
            warnings.warn(f"{found} Going on from {file.name}.", FileWarning, stacklevel=2)
        return file
    if problems:
        raise CheckpointError(
            f"{problems[0]} No checkpoint before it can be read. --overwrite trains anew."
        )
    return None


def is_written(product: FilePath) -> bool:
    """Whether the file that a training writes at its end is there and can be read."""
    return product.exists() and _damage(product) is None


def _damage(file: FilePath) -> CheckpointError | None:
    """Return why a file cannot be read, or None."""
    try:
        load_undamaged(file)
    except CheckpointError as problem:
        return problem
    return None


def _checkpoints(folder: FilePath) -> list[FilePath]:
    return list(folder.glob("step_*.ckpt"))


def read_identity(file: FilePath) -> Identity:
    """Return what the training of a checkpoint depends on. Raises CheckpointError."""
    content = load_tensors(file)
    identity = content.get(KEY) if isinstance(content, dict) else None
    if (
        not isinstance(identity, dict)
        or not all(isinstance(part, dict) for part in identity.values())
        or not is_plain(identity)
        or "loops" not in content
    ):
        raise CheckpointError(f"{file}: is not a checkpoint of a training that can be resumed.")
    return identity


def tensor_shapes(network: nn.Module) -> dict[str, list[int]]:
    """Return the shapes of all weights and statistics, a part of the identity of a training."""
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def check_identity(file: FilePath, current: Identity) -> None:
    """Check that a checkpoint belongs to the training that is to go on.

    Raises
    ------
    CheckpointError
        It belongs to another one, and what differs; or it cannot be read.
    """
    if found := changes(read_identity(file), current):
        raise CheckpointError(
            f"{file}: cannot be resumed, since {found}. Undo the change, or train anew with "
            "--overwrite."
        )


def check_finished(file: FilePath, made_for: Identity | None, current: Identity) -> None:
    """Check that what a finished training wrote is what today's would write.

    Parameters
    ----------
    file
        What it wrote.
    made_for
        What this depends on, as the file says; None, which is refused, if it does not say so.
    current
        What a training of today depends on.

    Raises
    ------
    CheckpointError
        They differ, and in what.
    """
    if made_for is None:
        raise CheckpointError(
            f"{file}: does not say with which settings it was trained. Train anew with --overwrite."
        )
    if found := changes(made_for, current):
        raise CheckpointError(
            f"{file}: was trained with other settings ({found}). Undo the change, or train anew "
            "with --overwrite."
        )


class Start(enum.Enum):
    """How a training begins."""

    NEW = "new"
    """From initial weights, and only where nothing would be lost."""
    RESUME = "resume"
    """From the checkpoint of the last finished epoch."""
    CONTINUE = "continue"
    """From the last checkpoint, or from initial weights without one; what is finished stays."""
    OVERWRITE = "overwrite"
    """From initial weights; what an earlier training left is deleted."""


def prepare_start(start: Start | FilePath, folder: FilePath, product: FilePath) -> FilePath | None:
    """Return the checkpoint to go on from, or None to begin; delete what is to be overwritten.

    Parameters
    ----------
    start
        How to begin, or the checkpoint to go on from.
    folder
        Of the checkpoints.
    product
        The file that the training writes at its end.

    Warns
    -----
    FileWarning
        A checkpoint or the product is damaged, and the training goes on from what is not.

    Raises
    ------
    CheckpointError
        There is something to lose, or nothing to go on from.
    nni_spos.files.owned.NotOwnError
        A file of the logs is a link, or another user's.
    """
    _remove_unfinished(folder, product)
    if start is not Start.OVERWRITE:
        _check_logs(folder / LOGS)
    if isinstance(start, FilePath):
        return start
    if start is Start.OVERWRITE:
        for file in _checkpoints(folder):
            file.unlink()
        shutil.rmtree(folder / LOGS, ignore_errors=True)
        product.unlink(missing_ok=True)
        previous(product).unlink(missing_ok=True)
        return None
    if start is Start.NEW:
        _check_new(folder, product)
        return None
    is_there = product.exists()
    problem = _damage(product) if is_there else None
    if start is Start.RESUME and is_there and problem is None:
        raise CheckpointError(f"{product}: is there already. --overwrite trains it anew.")
    last = last_undamaged(folder)
    if start is Start.RESUME and last is None:
        raise problem or CheckpointError(
            f"{folder}: has no checkpoint to resume from. Leave out --resume."
        )
    if problem is not None:
        warnings.warn(f"{problem} It is written again.", FileWarning, stacklevel=2)
    return last


def _remove_unfinished(folder: FilePath, product: FilePath) -> None:
    """Remove what a process left that was killed while it wrote; nobody else trains here."""
    left = [*folder.glob(".step_*.ckpt.*"), *product.parent.glob(f".{product.name}.*")]
    for file in left:
        file.unlink(missing_ok=True)


def _check_logs(folder: FilePath) -> None:
    """Check the files of TensorBoard, which follows links. Raises NotOwnError."""
    for file in folder.glob("*"):
        if not file.is_dir():
            check_own_file(file)


def _check_new(folder: FilePath, product: FilePath) -> None:
    """Check that a new training takes nothing away. Raises CheckpointError."""
    if product.exists():
        raise CheckpointError(f"{product}: is there already. --overwrite trains it anew.")
    if (last := last_checkpoint(folder)) is not None:
        raise CheckpointError(
            f"{folder}: a training was begun here (last checkpoint: {last.name}). --resume goes "
            "on with it, --overwrite begins anew."
        )


def exclusive(folder: FilePath, timeout: float) -> contextlib.AbstractContextManager[None]:
    """Keep other processes from training in the same folder.

    Parameters
    ----------
    folder
        Of the checkpoints; its lock is the file beside it with the suffix ``.lock``.
    timeout
        Seconds to wait for another process; negative: for ever.

    Raises
    ------
    CheckpointError
        Another process still trains.
    """
    refusal = CheckpointError(f"{folder}: another process is training here.")
    return locks.exclusive(folder.with_name(f"{folder.name}.lock"), timeout, refusal)
