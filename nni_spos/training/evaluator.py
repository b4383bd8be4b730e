"""Lightning's trainer with the settings of a recipe, as an evaluator of NNI."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

import torch
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from nni.nas.evaluator.pytorch import Lightning, Trainer
from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from nni_spos.data import ImageData
from nni_spos.freed_memory import keep_freed_memory
from nni_spos.ranks import choose_devices, launched
from nni_spos.recipe import TrainSettings
from nni_spos.termination import Terminated
from nni_spos.training.busy_machine import BusyMachine
from nni_spos.training.callbacks import (
    RefusedCheckpoint,
    ResumedEpoch,
    SeededSteps,
    TrainingProgress,
)
from nni_spos.training.checkpoints import (
    LOGS,
    Identity,
    IdentityInCheckpoints,
    SafeCheckpointIO,
    check_identity,
    epoch_checkpoints,
)
from nni_spos.training.gradients import choose_strategy
from nni_spos.training.module import ImageClassification


def build_evaluator(
    settings: TrainSettings,
    data: ImageData,
    folder: FilePath | None = None,
    *,
    title: str = "training",
    identity: Identity | None = None,
    resume: FilePath | None = None,
    callbacks: Sequence[Callback] = (),
    layout: torch.memory_format | None = None,
) -> Lightning:
    """Return an evaluator that trains the network, or the supernet, that NNI hands to it.

    Order and augmentation of the images, dropout and, with `SinglePathOneShot`, the paths are
    functions of the seed and the step: two runs on one CPU give the same weights bit for bit,
    also if one of them was resumed. PyTorch's generators are seeded in every step.

    With several devices this is called in each process of `nni_spos.ranks.run_processes`. All of
    them train the same paths, each with its part of every batch.

    Parameters
    ----------
    settings
        How to train.
    data
        Its training split is used.
    folder
        For ``step_NNNNNNN.ckpt`` (everything that resuming needs) and TensorBoard's logs; None:
        nothing is written.
    title
        Shown beside the progress bar.
    identity
        What the weights depend on, by default `settings`; written into every checkpoint.
    resume
        Checkpoint to go on from.
    callbacks
        More of Lightning's callbacks.
    layout
        See `ImageClassification`.

    Raises
    ------
    CheckpointError
        `resume` is missing, damaged, or of a training with other settings.
    RecipeError
        See `nni_spos.ranks.choose_devices`.
    """
    devices = choose_devices(settings)
    identity = identity or {"settings": settings.deciding()}
    if resume is not None:
        check_identity(resume, identity)
        callbacks = [*callbacks, RefusedCheckpoint(resume), ResumedEpoch()]
    loader = data.train_loader(settings.batch_size, settings.seed)
    callbacks = [*callbacks, SeededSteps(settings.seed), TrainingProgress(title), BusyMachine()]
    if folder is not None:
        callbacks += [
            IdentityInCheckpoints(identity),
            epoch_checkpoints(folder, settings.keep_checkpoints),
        ]
    # Whatever else the machine runs, SLURM for one, would be found first.
    environment = [TorchElasticEnvironment()] if launched() else []
    with _quiet():
        trainer = Trainer(
            accelerator="auto",
            devices=devices,
            num_nodes=settings.num_nodes,
            strategy=choose_strategy(settings.strategy, devices * settings.num_nodes),
            precision=choose_precision(settings.precision),
            max_epochs=settings.epochs if settings.epochs is not None else -1,
            max_steps=settings.steps if settings.steps is not None else -1,
            gradient_clip_val=settings.gradient_clip,
            logger=TensorBoardLogger(folder, name="", version=LOGS) if folder else False,
            log_every_n_steps=min(50, len(loader)),
            callbacks=callbacks,
            plugins=[SafeCheckpointIO(), *environment],
            enable_checkpointing=folder is not None,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            # A supernet has no accuracy of its own, and the held-out images are for the search.
            limit_val_batches=0,
        )
        return Lightning(
            ImageClassification(settings, layout),
            trainer,
            train_dataloaders=loader,
            val_dataloaders=data.validation_batches(settings.batch_size),
            fit_kwargs={"ckpt_path": str(resume)} if resume is not None else None,
        )


@contextlib.contextmanager
def training_session() -> Iterator[None]:
    """Let Lightning train, quietly apart from the progress bar.

    From here on the process keeps the memory of freed tensors.

    Raises
    ------
    KeyboardInterrupt
        The user pressed Ctrl-C; Lightning alone would end the process.
    Terminated
        It got SIGTERM.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    keep_freed_memory()
    try:
        with _quiet():
            yield
    except SIGTERMException:
        raise Terminated from None
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        # Lightning leaves Ctrl-C ignored for the rest of the process.
        if on_main_thread and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


def choose_precision(precision: str) -> str:
    """Return Lightning's name; ``auto`` is mixed on CUDA only, where it is faster."""
    if precision == "auto":
        return "16-mixed" if torch.cuda.is_available() else "32-true"
    return precision


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what Lightning and NNI say about the machine and about what was chosen on purpose.

    Also NNI's lines about an exception, which it raises as well.
    """
    silent = {
        "pytorch_lightning": logging.ERROR,
        "lightning_fabric": logging.ERROR,
        "nni.nas": logging.CRITICAL,
    }
    loggers = {logging.getLogger(name): level for name, level in silent.items()}
    before = {logger: logger.level for logger in loggers}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        for logger, level in loggers.items():
            logger.setLevel(level)
        try:
            yield
        finally:
            for logger, level in before.items():
                logger.setLevel(level)
