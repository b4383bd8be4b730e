"""One class for each image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nni_spos.errors import RecipeError
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.settings import POSITIVE_INT, list_of, optional, real, setting
from nni_spos.tasks.base import LOG_LIKELIHOOD, Figure, Task

if TYPE_CHECKING:
    from torch import Tensor

    from nni_spos.recipe.training_settings import TrainSettings

RANKS = list_of(POSITIVE_INT, "a list such as [1, 5]")
WEIGHTS = optional(list_of(real(0), "a list such as [1.0, 2.5]"))


@dataclass(frozen=True)
class Classification(Task):
    """The class of each image, with cross entropy.

    Parameters
    ----------
    topk
        Of which ranks there is an accuracy: the share of images whose class is among so many first
        outputs. A search maximises the first.
    class_weights
        How much an image of each class counts in a training; by default all the same.
    """

    topk: tuple[int, ...] = setting(RANKS, (1, 5), tuple)
    class_weights: tuple[float, ...] | None = setting(WEIGHTS, None, tuple)

    targets: ClassVar[tuple[str, ...]] = ("class",)
    compares_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.topk or len(set(self.topk)) < len(self.topk):
            raise RecipeError(f"topk: must name ranks, each once, got {list(self.topk)}.")

    @property
    def figures(self) -> Sequence[Figure]:
        """Accuracies in percent."""
        return tuple(
            Figure(f"top{k}", f"top-{k} accuracy", f"top-{k}", "%", digits=2) for k in self.topk
        )

    def check(self, spec: DatasetSpec) -> None:
        """Refuse weights of another number of classes. Raises RecipeError."""
        if self.class_weights is not None and len(self.class_weights) != spec.num_classes:
            raise RecipeError(
                f"class_weights: got {len(self.class_weights)}, but {spec.name} has "
                f"{spec.num_classes} classes. Give one for each."
            )

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross entropy; targets may be shares of classes too."""
        import torch
        from torch.nn import functional

        weights = self.class_weights
        weight = None if weights is None else torch.tensor(weights, device=outputs.device)
        return functional.cross_entropy(
            outputs,
            targets,
            weight=None if weight is None else weight.to(outputs.dtype),
            label_smoothing=label_smoothing,
        )

    def loss_of(self, settings: TrainSettings) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss with the label smoothing of a training."""
        return functools.partial(self.loss, label_smoothing=settings.label_smoothing)

    def total_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum of the cross entropy, every class with the same weight."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, targets, reduction="sum")

    @property
    def image_figures(self) -> tuple[str, ...]:
        """Accuracies, and the log-likelihood."""
        return (*(figure.name for figure in self.figures), LOG_LIKELIHOOD)

    def image_values(self, objective: str, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 100 or 0 for each image of an accuracy, or minus the loss of each."""
        from torch.nn import functional

        if objective == LOG_LIKELIHOOD:
            return -functional.cross_entropy(outputs, targets, reduction="none")
        k = min(int(objective.removeprefix("top")), outputs.shape[1])
        hits = outputs.topk(k, dim=1).indices == targets[:, None]
        return 100.0 * hits.any(dim=1).float()

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how many images have their class among so many first outputs."""
        import torch

        most = min(max(self.topk), outputs.shape[1])
        hits = outputs.topk(most, dim=1).indices == targets[:, None]
        return torch.stack([hits[:, :k].sum() for k in self.topk])

    def conclude(self, sums: Sequence[float], num_images: int) -> Mapping[str, float]:
        """Return accuracies in percent."""
        percent = 100.0 / num_images
        return {f"top{k}": hits * percent for k, hits in zip(self.topk, sums, strict=True)}

    def step_figures(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Return the top-1 accuracy of a batch in percent."""
        classes = targets.argmax(1) if targets.is_floating_point() else targets
        return {"top1": 100 * (outputs.argmax(1) == classes).float().mean()}
