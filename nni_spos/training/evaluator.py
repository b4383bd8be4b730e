"""Lightning's trainer with the settings of a recipe, as an evaluator of NNI."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from nni.nas.evaluator.pytorch import Lightning, Trainer
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from nni_spos.data import ImageData
from nni_spos.process.freed_memory import keep_freed_memory
from nni_spos.process.termination import Terminated
from nni_spos.ranks import count_devices, launched
from nni_spos.recipe.training_settings import TrainSettings
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
from nni_spos.training.composed import (
    NO_TECHNIQUES,
    TechniqueHooks,
    Techniques,
    build_techniques,
)
from nni_spos.training.curves import Curves
from nni_spos.training.gradients import choose_strategy
from nni_spos.training.module import TaskModule
from nni_spos.training.quiet import quiet


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
        See `TaskModule`.

    Raises
    ------
    CheckpointError
        `resume` is missing, damaged, or of a training with other settings.
    RecipeError
        See `nni_spos.ranks.count_devices`.
    """
    devices = count_devices(settings)
    identity = identity or {"settings": settings.deciding()}
    if resume is not None:
        check_identity(resume, identity)
        callbacks = [*callbacks, RefusedCheckpoint(resume), ResumedEpoch()]
    techniques = NO_TECHNIQUES
    if settings.techniques:
        techniques = build_techniques(settings, data.spec, data.task)
    options = techniques.loader_options()
    loader = data.train_loader(settings.batch_size, settings.seed, **options)
    bar = TrainingProgress(title, data.task)
    callbacks = [*callbacks, SeededSteps(settings.seed), bar, BusyMachine()]
    accumulated = techniques.trainer_options().get("accumulate_grad_batches", 1)
    log_steps = min(50, -(-len(loader) // accumulated))
    if settings.techniques:
        callbacks = [TechniqueHooks(techniques, data), *techniques.callbacks(), *callbacks]
    if folder is not None:
        callbacks += [
            Curves(folder, log_steps),
            IdentityInCheckpoints(identity),
            epoch_checkpoints(folder, settings.keep_checkpoints),
        ]
    # Whatever else the machine runs, SLURM for one, would be found first.
    environment = [TorchElasticEnvironment()] if launched() else []
    with quiet():
        trainer = Trainer(
            devices=devices,
            num_nodes=settings.num_nodes,
            strategy=choose_strategy(settings.strategy, devices * settings.num_nodes),
            logger=choose_logger(techniques, folder),
            log_every_n_steps=log_steps,
            callbacks=callbacks,
            plugins=[SafeCheckpointIO(), *environment],
            enable_checkpointing=folder is not None,
            **common_options(settings),
            **techniques.trainer_options(),
        )
        return Lightning(
            TaskModule(settings, layout, techniques, data.task),
            trainer,
            train_dataloaders=loader,
            val_dataloaders=data.validation_batches(settings.batch_size),
            fit_kwargs={"ckpt_path": str(resume)} if resume is not None else None,
        )


def choose_logger(techniques: Techniques, folder: FilePath | None) -> Logger | bool:
    """Return what logs a training: TensorBoard, unless a technique says otherwise."""
    if folder is None:
        return False
    other = techniques.logger(folder / LOGS)
    return TensorBoardLogger(folder, name="", version=LOGS) if other is None else other


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
        with quiet():
            yield
    except SIGTERMException:
        raise Terminated from None
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        # Lightning leaves Ctrl-C ignored for the rest of the process.
        if on_main_thread and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


def common_options(settings: TrainSettings) -> dict[str, Any]:
    """Return what Lightning's trainer is told for every training, on one device or on many."""
    return {
        "accelerator": "auto",
        "precision": choose_precision(settings.precision),
        "max_epochs": settings.epochs if settings.epochs is not None else -1,
        "max_steps": settings.steps if settings.steps is not None else -1,
        "gradient_clip_val": settings.gradient_clip,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        # A supernet has no accuracy of its own, and the held-out images are for the search.
        "limit_val_batches": 0,
    }


def choose_precision(precision: str) -> str:
    """Return Lightning's name; ``auto`` is mixed on CUDA only, where it is faster."""
    if precision == "auto":
        return "16-mixed" if torch.cuda.is_available() else "32-true"
    return precision
