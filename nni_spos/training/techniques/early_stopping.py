"""The end of a training that gains nothing any more: ``early_stopping``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nni_spos.errors import RecipeError, unknown
from nni_spos.recipe.settings import COUNT, TEXT, real, setting
from nni_spos.tasks.base import LOSS, Figure, Task
from nni_spos.training.technique import HELD_OUT, RETRAIN, Technique

if TYPE_CHECKING:
    from pytorch_lightning import Callback
    from torch import nn

    from nni_spos.data import ImageData

MODES = {"higher": "max", "lower": "min"}
"""Lightning's words for what is better."""


def monitors(task: Task) -> dict[str, Figure]:
    """Return what can be watched in a training for a task, by name.

    >>> from nni_spos.tasks.classification import Classification
    >>> list(monitors(Classification()))
    ['validation_loss', 'validation_top1', 'validation_top5']
    """
    return {HELD_OUT + figure.name: figure for figure in (LOSS, *task.figures)}


class EarlyStop(Technique):
    """End a retraining when the held-out images show no gain for some epochs.

    The weights are those of the last epoch. The images are those that the search scores paths with;
    the test images stay unseen. A supernet has no accuracy of its own, so it is not for that.
    """

    title = "early_stopping"
    sections = (RETRAIN,)

    @dataclass(frozen=True)
    class Settings:
        """What the technique takes from a recipe.

        Parameters
        ----------
        early_stopping
            Epochs without a gain after which the training ends; 0: it goes on to its end.
        early_stopping_monitor
            Figure of the held-out images that is to become better: ``validation_loss``, what the
            training lowers, or a figure of the task, such as ``validation_top1``.
        early_stopping_min_delta
            Smallest change that is a gain.
        """

        early_stopping: int = setting(COUNT, 0)
        early_stopping_monitor: str = setting(TEXT, "validation_loss")
        early_stopping_min_delta: float = setting(real(0), 0.0)

    def __init__(self, settings: Settings, training: Any):
        super().__init__(settings, training)
        self._data: ImageData | None = None
        monitor, known = settings.early_stopping_monitor, monitors(training.task)
        if monitor not in known:
            raise RecipeError(f"early_stopping_monitor: {unknown('figure', monitor, known)}")
        self._mode = MODES[known[monitor].is_better]

    def callbacks(self) -> Sequence[Callback]:
        from nni_spos.training.stopping import LastingEarlyStopping

        settings = self.settings
        return [
            LastingEarlyStopping(
                settings.early_stopping_monitor,
                min_delta=settings.early_stopping_min_delta,
                patience=settings.early_stopping,
                mode=self._mode,
                check_on_train_epoch_end=True,
            )
        ]

    def begin(self, network: nn.Module, data: ImageData | None) -> None:
        self._data = data

    def after_epoch(self, network: nn.Module) -> Mapping[str, float]:
        from nni_spos.training.stopping import validate

        assert self._data is not None
        settings = self.training.settings
        batches = self._data.validation_batches(settings.batch_size)
        found = validate(network, batches, self._data.task, settings)
        return {HELD_OUT + name: value for name, value in found.items()}
