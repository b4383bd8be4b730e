"""Any number of labels for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nni_spos.errors import RecipeError
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.settings import list_of, optional, real, setting
from nni_spos.tasks.base import Figure, Task

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

WEIGHTS = optional(list_of(real(0), "a list such as [1.0, 20.0]"))


@dataclass(frozen=True)
class MultiLabel(Task):
    """Which of some labels each image has, with binary cross entropy.

    Parameters
    ----------
    positive_weights
        How much more it counts in a training that an image has a label than that it has not, for
        each label; by default the same.
    threshold
        Probability from which a label counts as predicted, for `accuracy`.
    """

    positive_weights: tuple[float, ...] | None = setting(WEIGHTS, None, tuple)
    threshold: float = setting(real(0, 1), 0.5)

    targets: ClassVar[tuple[str, ...]] = ("labels",)

    @property
    def figures(self) -> Sequence[Figure]:
        """Mean average precision over the labels, and the share of labels that are right."""
        return (
            Figure("map", "mean average precision", "mAP"),
            Figure("accuracy", "accuracy of labels", "accuracy", "%", digits=2),
        )

    def check(self, spec: DatasetSpec) -> None:
        """Refuse weights of another number of labels. Raises RecipeError."""
        weights = self.positive_weights
        if weights is not None and len(weights) != spec.num_classes:
            raise RecipeError(
                f"positive_weights: got {len(weights)}, but {spec.name} has {spec.num_classes} "
                "labels. Give one for each."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean binary cross entropy of all labels."""
        import torch
        from torch.nn import functional

        given = self.positive_weights
        weights = None if given is None else torch.tensor(given, device=outputs.device)
        return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights)

    def total_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over images of the mean over labels, each with the same weight."""
        from torch.nn import functional

        found = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return found.mean(1).sum()

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over images of the share of labels that are right."""
        predicted = outputs.sigmoid() >= self.threshold
        return (predicted == (targets > 0.5)).float().mean(1).sum()[None]

    def conclude(self, sums: Sequence[float], num_images: int) -> Mapping[str, float]:
        """Return the accuracy in percent."""
        return {"accuracy": 100.0 * sums[0] / num_images}

    def metrics(self, num_outputs: int) -> Mapping[str, Metric]:
        """Return the mean average precision, which keeps every score."""
        from torchmetrics.classification import MultilabelAveragePrecision

        return {"map": MultilabelAveragePrecision(num_outputs, validate_args=False)}

    def for_metrics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities, and labels as whole numbers."""
        return outputs.sigmoid(), targets.int()

    def step_figures(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Return the share of labels that are right, in percent."""
        return {"accuracy": 100 * self.tally(outputs, targets)[0] / len(targets)}
