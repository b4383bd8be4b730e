"""Real numbers for each image: a regression, or the coordinates of keypoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nni_spos.recipe.settings import one_of, real, setting
from nni_spos.tasks.base import Figure, Task

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regression(Task):
    """Real numbers for each image, such as an age, or x and y of each keypoint.

    Parameters
    ----------
    criterion
        What a training lowers: the mean of squares (mse), of absolute values (l1), or of squares
        that go on as absolute values (huber).
    delta
        Error from which huber goes on as absolute values.
    """

    criterion: str = setting(one_of("mse", "l1", "huber"), "mse")
    delta: float = setting(real(1e-6), 1.0)

    targets: ClassVar[tuple[str, ...]] = ("values",)

    @property
    def figures(self) -> Sequence[Figure]:
        """The share of the variance that is explained, and errors in the unit of the values."""
        return (
            Figure("r2", "R2"),
            Figure("mae", "mean absolute error", "MAE", is_better="lower"),
            Figure("rmse", "root of the mean squared error", "RMSE", is_better="lower"),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over all values."""
        from torch.nn import functional

        if self.criterion == "mse":
            return functional.mse_loss(outputs, targets)
        if self.criterion == "l1":
            return functional.l1_loss(outputs, targets)
        return functional.huber_loss(outputs, targets, delta=self.delta)

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return sums for each value: absolute and squared errors, values, and their squares."""
        import torch

        values, errors = targets.double(), (outputs - targets).double()
        return torch.cat([x.sum(0) for x in (errors.abs(), errors**2, values, values**2)])

    def conclude(self, sums: Sequence[float], num_images: int) -> Mapping[str, float]:
        """Return the figures; R2 is the mean over the values that are not always the same."""
        size = len(sums) // 4
        absolute, squares, values, squared = (sums[i * size :][:size] for i in range(4))
        shares = []
        for error, total, total_of_squares in zip(squares, values, squared, strict=True):
            variance = total_of_squares - total**2 / num_images
            if variance > 1e-12 * total_of_squares:
                shares.append(1 - error / variance)
        return {
            "r2": sum(shares) / len(shares) if shares else math.nan,
            "mae": sum(absolute) / (size * num_images),
            "rmse": math.sqrt(sum(squares) / (size * num_images)),
        }

    def step_figures(self, outputs: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Return the mean absolute error of a batch."""
        return {"mae": (outputs - targets).abs().mean()}
