"""What ends a training before its time, also over a resumption."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn

from nni_spos.data import EvaluationBatches
from nni_spos.recipe.training_settings import TrainSettings
from nni_spos.scoring.tallies import Tallies
from nni_spos.tasks.base import LOSS, Task


class LastingEarlyStopping(EarlyStopping):
    """Lightning's, and a training that it has ended stays ended when it is resumed."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        # Compared on the CPU when it is restored; Lightning moves it itself.
        return {**super().state_dict(), "best_score": self.best_score.cpu()}


@torch.no_grad()
def validate(
    network: nn.Module, batches: EvaluationBatches, task: Task, settings: TrainSettings
) -> dict[str, float]:
    """Return what a training lowers, and the figures of its task, of a network as it is now.

    The network is in training mode afterwards, as it was.

    Parameters
    ----------
    network
        Returns what the task takes.
    batches
        Images and targets.
    task
        Gives the loss and the figures.
    settings
        Of the training; its loss may depend on them.

    Returns
    -------
    The loss and the figures by name; the loss is a mean over the images.
    """
    parameter = next(network.parameters())
    device, precision = parameter.device, parameter.dtype
    loss, tallies = task.loss_of(settings), Tallies(task, num_paths=1)
    total = 0.0
    network.eval()
    try:
        for images, targets in batches.to(device):
            outputs = network(images.to(precision))
            tallies.add(0, outputs, targets)
            if targets.is_floating_point():
                targets = targets.to(precision)
            total += len(targets) * float(loss(outputs, targets))
    finally:
        network.train()
    (found,) = tallies.conclude()
    return {**found.figures, LOSS.name: total / batches.num_images}
