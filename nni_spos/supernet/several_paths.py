"""A training step of several paths: one batch, and the mean of their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nni_spos.errors import RecipeError
from nni_spos.mutables import ActiveSlices
from nni_spos.path import Path
from nni_spos.training.gradients import SampledGradients


class SeveralPaths:
    """Trains the paths of a step one after the other, so that memory is that of one.

    Each path but the last leaves its gradients here; those of the last are Lightning's to compute,
    who then clips the sum, or averages it over processes, once.

    Parameters
    ----------
    module
        That Lightning trains: a `nni_spos.supernet.SinglePathModule` around a
        `nni_spos.training.module.TaskModule`.

    Attributes
    ----------
    has_gradients : bool
        Whether the step that runs has left gradients.
    """

    def __init__(self, module: Any):
        # A module would be found among the other one's own.
        self._module = (module,)
        self._slices: ActiveSlices | None = None
        self.has_gradients = False

    def train(self, paths: Sequence[Path], batch: Any, batch_idx: int) -> Tensor:
        """Return the last path's share of the loss; the others' gradients are computed.

        Parameters
        ----------
        paths
            Of the step, in their order.
        batch, batch_idx
            What Lightning gives to a training step.

        Raises
        ------
        RecipeError
            Several processes average gradients in a way that knows one path alone.
        """
        (module,) = self._module
        trainer, inner = module.trainer, module.training_module
        if trainer.world_size > 1 and not isinstance(trainer.strategy, SampledGradients):
            raise RecipeError(
                "a technique lets a step train several paths, and with strategy: "
                f"{inner.settings.strategy} several processes train one. Leave strategy out."
            )
        if self._slices is None:
            self._slices = ActiveSlices(module.model)
        if batch_idx % trainer.accumulate_grad_batches == 0:
            trainer.optimizers[0].zero_grad()
            self._slices.note()
        self.has_gradients = True
        images, targets = inner.prepare(batch)
        shown: list[dict[str, Tensor]] = []
        share = images.new_zeros(())
        for position, path in enumerate(paths):
            if position:
                self._backward(share / trainer.accumulate_grad_batches)
            module.use(path)
            inner.techniques.begin_path(path, position)
            loss, figures = inner.pass_through(images, targets)
            share = loss / len(paths)
            shown.append(figures)
        inner.show(_means(shown))
        return share

    def end(self) -> None:
        """Let steps have a single path again."""
        if self.has_gradients and self._slices is not None:
            self._slices.forget()
        self.has_gradients = False

    def _backward(self, loss: Tensor) -> None:
        """Add a path's gradients, as Lightning would, but send them to no other process."""
        (module,) = self._module
        plugin = module.trainer.strategy.precision_plugin
        with torch.autocast(module.device.type, enabled=False):
            loss = plugin.pre_backward(loss, module)
            plugin.backward(loss, module, None)
            plugin.post_backward(loss, module)


def _means(shown: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each figure over the paths that have it."""
    names = dict.fromkeys(name for figures in shown for name in figures)
    return {x: torch.stack([y[x] for y in shown if x in y]).mean() for x in names}
