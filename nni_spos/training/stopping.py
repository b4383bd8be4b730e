"""What ends a training before its time, also over a resumption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn

from nni_spos.data import EvaluationBatches


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
    network: nn.Module, batches: EvaluationBatches, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, float]:
    """Return the loss of a network as it is now, and of classes the top-1 accuracy in percent.

    The network is in training mode afterwards, as it was.

    Parameters
    ----------
    network
        Returns what the loss takes.
    batches
        Images and targets.
    loss
        Takes outputs and targets of a batch, and returns a mean over its images.
    """
    parameter = next(network.parameters())
    device, precision = parameter.device, parameter.dtype
    total = hits = 0.0
    is_class = False
    network.eval()
    try:
        for images, targets in batches.to(device):
            if targets.is_floating_point():
                targets = targets.to(precision)
            outputs = network(images.to(precision))
            total += len(targets) * float(loss(outputs, targets))
            is_class = targets.ndim == 1 and not targets.is_floating_point()
            if is_class:
                hits += float((outputs.argmax(1) == targets).sum())
    finally:
        network.train()
    found = {"loss": total / batches.num_images}
    return {**found, "top1": 100 * hits / batches.num_images} if is_class else found
