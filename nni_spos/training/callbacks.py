"""Seeding of every step, the cost of a training, and the progress bar."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loops.loop import _Loop
from torch import Tensor
from torch.utils._pytree import tree_leaves

from nni_spos.display.progress import interval, open_bar
from nni_spos.errors import CheckpointError
from nni_spos.process.stage_cost import StageCost, measure_since, read_stage_cost, reset_peak_memory
from nni_spos.tasks.base import Task, plain_figure
from nni_spos.training.technique import HELD_OUT

RATE = "learning_rate"
"""Name of the learning rate in what is logged."""


class SeededSteps(Callback):
    """Seed PyTorch's generators in every step by (seed, step, rank), for dropout and the like.

    So a resumed training continues as if it had never stopped.
    """

    def __init__(self, seed: int):
        self._seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        words = [self._seed, trainer.global_step, trainer.global_rank]
        if (several := trainer.accumulate_grad_batches) > 1:
            words.append(batch_idx % several)
        seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])
        # torch.manual_seed would note the stack for each kind of device that is not in use: 1 ms.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)


class TrainingCost(Callback):
    """Measure time and peak memory of a training, also over the parts of one that was resumed.

    With several processes the memory is that of one of them.

    Attributes
    ----------
    cost : StageCost or None
        Of the training so far; None before it begins, and for one that goes on from a checkpoint
        without it.
    """

    def __init__(self) -> None:
        self._earlier: StageCost | None = None
        self._begin: float | None = None

    @property
    def cost(self) -> StageCost | None:
        if self._begin is None or self._earlier is None:
            return None
        return self._earlier + measure_since(self._begin)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            self._earlier = StageCost(0.0, None, "")
        self._begin = time.monotonic()
        reset_peak_memory()

    def state_dict(self) -> dict[str, Any]:
        return {"cost": self.cost and self.cost.to_json()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._earlier = read_stage_cost(state_dict.get("cost"))


class RefusedCheckpoint(Callback):
    """Say of what goes wrong before the first step that the checkpoint is the reason.

    Parameters
    ----------
    file
        What the training goes on from.

    Raises
    ------
    CheckpointError
        Lightning or PyTorch cannot restore what is in the file.
    """

    def __init__(self, file: FilePath):
        self._file = file
        self._is_restored = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_restored = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if not self._is_restored and isinstance(exception, Exception):
            reason = f"{type(exception).__name__}: {exception}"
            raise CheckpointError(
                f"{self._file}: cannot be resumed ({reason:.300}). --overwrite trains anew."
            ) from exception


class ResumedEpoch(Callback):
    """Begin a new epoch where a finished one was saved, also if the training's length is in steps.

    Lightning then takes the saved epoch for an unfinished one: it would train a single batch, and
    all later epochs would be other ones.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loop = trainer.fit_loop
        progress = loop.epoch_progress.current
        if loop.restarting and progress.ready == progress.started == progress.processed:
            _Loop.restarting.fset(loop, False)  # the loop's own setter is what goes wrong
            loop.reset()


class TrainingProgress(Callback):
    """Show one bar for the whole training: epoch, loss, figures and images per second.

    Loss and figures are moving averages, since every step of a supernet trains another path.

    Parameters
    ----------
    title
        What is trained.
    task
        Says how its figures are shown; None: nobody has described them.
    """

    WEIGHT = 0.05
    """Of a new step in the moving averages."""

    def __init__(self, title: str, task: Task | None):
        self._title = title
        self._task = task

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._averages: dict[str, Tensor] = {}
        self._num_images = 0
        self._begin = self._shown = time.monotonic()
        self._bar = open_bar(
            self._title,
            int(trainer.estimated_stepping_batches),
            "step",
            initial=trainer.global_step,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._num_images += num_examples(batch) * trainer.world_size
        metrics = trainer.callback_metrics  # made anew at every look
        for name, value in metrics.items():
            if name == RATE:
                continue
            before = self._averages.get(name, value)
            self._averages[name] = (
                value if is_steady(name) else torch.lerp(before, value, self.WEIGHT)
            )
        now = time.monotonic()
        is_last = trainer.global_step == self._bar.total
        # Reading a number waits for the device, so this is done only to show it.
        if now - self._shown >= interval() or is_last:
            self._shown = now
            self._show(trainer, now)
        self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if hasattr(self, "_bar"):
            self._bar.close()

    def _show(self, trainer: Trainer, now: float) -> None:
        epoch = f"epoch {trainer.current_epoch + 1}"
        if trainer.max_epochs and trainer.max_epochs > 0:
            epoch += f"/{trainer.max_epochs}"
        speed = self._num_images / max(now - self._begin, 1e-9)
        figures = (
            f"{name} {value:.3f}" if name == "loss" else self._named(name, float(value))
            for name, value in self._averages.items()
        )
        text = ", ".join([epoch, *figures, f"{speed:.0f} images/s"])
        self._bar.set_postfix_str(text, refresh=False)

    def _named(self, name: str, value: float) -> str:
        own = name.removeprefix(HELD_OUT)
        figure = plain_figure(own) if self._task is None else self._task.figure(own)
        title = f"held-out {figure.brief}" if name.startswith(HELD_OUT) else figure.title or name
        if figure.digits:  # one less than where a result is shown
            figure = replace(figure, digits=figure.digits - 1)
        return f"{title} {figure.format(value)}"


def num_examples(batch: Any) -> int:
    """Return how many examples a batch of any form has: the length of its first tensor.

    >>> num_examples({"image": torch.zeros(4, 1, 2, 2), "label": torch.zeros(4)})
    4
    """
    return next((len(x) for x in tree_leaves(batch) if isinstance(x, Tensor) and x.dim()), 0)


def is_steady(name: str) -> bool:
    """Whether what is logged under a name does not change from one step to the next at random."""
    return name == RATE or name.startswith(HELD_OUT)
