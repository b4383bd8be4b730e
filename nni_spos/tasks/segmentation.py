"""The class of each pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nni_spos.errors import RecipeError
from nni_spos.recipe.dataset import IGNORED, DatasetSpec
from nni_spos.recipe.settings import COUNT, list_of, optional, real, setting
from nni_spos.tasks.base import Figure, Task

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = optional(list_of(real(0), "a list such as [0.1, 1.0]"))


@dataclass(frozen=True)
class Segmentation(Task):
    """The class of each pixel, with cross entropy, the Dice loss, or both.

    Parameters
    ----------
    dice
        Share of the Dice loss in what a training lowers; the rest is cross entropy.
    ignore_index
        In a mask, what stands for pixels that do not count.
    class_weights
        How much a pixel of each class counts in the cross entropy of a training; by default all the
        same.
    """

    dice: float = setting(real(0, 1), 0.0)
    ignore_index: int = setting(COUNT, IGNORED)
    class_weights: tuple[float, ...] | None = setting(WEIGHTS, None, tuple)

    targets: ClassVar[tuple[str, ...]] = ("mask",)
    compares_outputs: ClassVar[bool] = True

    @property
    def figures(self) -> Sequence[Figure]:
        """Mean intersection over union of the classes, and the share of pixels that are right."""
        return (
            Figure("miou", "mean IoU", "mIoU", "%", digits=2),
            Figure("pixel_accuracy", "pixel accuracy", "", "%", digits=2),
        )

    def output_shape(self, spec: DatasetSpec) -> tuple[int, ...]:
        """Return the shape of the logits for one image: of each pixel one for every class."""
        return (spec.num_classes, *spec.input_shape[1:])

    def check(self, spec: DatasetSpec) -> None:
        """Refuse weights of another number of classes. Raises RecipeError."""
        weights = self.class_weights
        if weights is not None and len(weights) != spec.num_classes:
            raise RecipeError(
                f"class_weights: got {len(weights)}, but {spec.name} has {spec.num_classes} "
                "classes. Give one for each."
            )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over images of the loss of their pixels."""
        return self._of_images(outputs, targets, self.class_weights).mean()

    def total_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the sum over images, every class with the same weight."""
        return self._of_images(outputs, targets, None).sum()

    def _of_images(
        self, outputs: Tensor, targets: Tensor, weights: Sequence[float] | None
    ) -> Tensor:
        """Return the loss of each image, shape (N,)."""
        import torch

        counted = targets != self.ignore_index
        classes = targets.where(counted, 0)
        # One softmax for both losses: it takes the longest of all that is scored.
        logarithms = outputs.float().log_softmax(1)
        of_class = logarithms.gather(1, classes[:, None])[:, 0]
        pixels = -of_class * counted
        if weights is not None:
            pixels = pixels * torch.tensor(weights, device=outputs.device)[classes]
        found = pixels.flatten(1).sum(1) / counted.flatten(1).sum(1).clamp(min=1)
        if not self.dice:
            return found
        shares = logarithms.exp() * counted[:, None]
        right = of_class.exp() * counted
        # Summed by class without a table of all pixels and classes.
        none, places = shares.new_zeros(shares.shape[:2]), classes.flatten(1)
        both = none.scatter_add(1, places, right.flatten(1))
        wanted = none.scatter_add(1, places, counted.flatten(1).to(shares.dtype))
        each = shares.flatten(2).sum(2) + wanted
        overlap = (2 * both + 1) / (each + 1)  # the ones: an absent class is no division by zero
        return (1 - self.dice) * found + self.dice * (1 - overlap.mean(1))

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the confusion matrix of the pixels, row by row: a row for each true class."""
        number = outputs.shape[1]
        counted = targets != self.ignore_index
        pairs = targets * number + outputs.argmax(1)
        found = pairs.where(counted, number**2).flatten().bincount(minlength=number**2 + 1)
        return found[: number**2]

    def conclude(self, sums: Sequence[float], num_images: int) -> Mapping[str, float]:
        """Return figures in percent; a class that is nowhere does not count in the mean."""
        number = math.isqrt(len(sums))
        rows = [sums[i * number :][:number] for i in range(number)]
        unions = [sum(rows[i]) + sum(row[i] for row in rows) - rows[i][i] for i in range(number)]
        shares = [rows[i][i] / union for i, union in enumerate(unions) if union]
        right, total = sum(rows[i][i] for i in range(number)), sum(sums)
        return {
            "miou": 100.0 * sum(shares) / len(shares) if shares else math.nan,
            "pixel_accuracy": 100.0 * right / total if total else math.nan,
        }

    def step_figures(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Return the share of pixels of a batch that are right, in percent."""
        counted = targets != self.ignore_index
        right = (outputs.argmax(1) == targets) & counted
        return {"pixel_accuracy": 100 * right.sum() / counted.sum().clamp(min=1)}
