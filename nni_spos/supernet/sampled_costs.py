"""What the sampled paths cost, as histograms in TensorBoard."""

from __future__ import annotations

from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from nni_spos.cost_table import Costs
from nni_spos.path import Path


class SampledCosts(Callback):
    """Log a histogram of the sampled paths' costs for every epoch, ``sampled_flops`` and so on.

    The module that is trained is a `nni_spos.supernet.SinglePathModule`.

    Parameters
    ----------
    costs
        Cost tables by metric.
    """

    def __init__(self, costs: Costs):
        self._costs = costs
        self._paths: list[Path] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._paths += pl_module.paths(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        paths, self._paths = self._paths, []
        if trainer.logger is None or not trainer.is_global_zero:
            return
        if not hasattr(trainer.logger.experiment, "add_histogram"):
            return  # only TensorBoard has histograms
        for metric, table in self._costs.items():
            values = np.array([table.price(path) for path in paths], dtype=np.float64)
            trainer.logger.experiment.add_histogram(
                f"sampled_{metric}", values, trainer.global_step
            )
