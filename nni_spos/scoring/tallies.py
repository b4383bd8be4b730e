"""What is counted of the outputs of paths, batch by batch, and the figures that come of it.

Most figures follow from sums, which add up over batches. Those that do not are metrics of
torchmetrics, which keep what they need: of every path that is scored together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from nni_spos.errors import DataError, RecipeError
from nni_spos.tasks.base import LOSS, Task

MOST_BYTES = 2**30
"""Of all metrics of the paths that are scored together."""


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on some images.

    Parameters
    ----------
    figures
        Those of the task, and ``loss``, by name; each is an attribute too.
    num_images
        Number of images.

    Notes
    -----
    If an output of any image is not finite, the figures are NaN: none of them would say anything.

    Examples
    --------
    >>> Evaluation({"top1": 71.5, "loss": 1.2}, 100).top1
    71.5
    """

    figures: Mapping[str, float]
    num_images: int

    def __getattr__(self, name: str) -> float:
        figures = vars(self).get("figures", {})
        if name not in figures:
            raise AttributeError(f"there is no figure '{name}'; there are {', '.join(figures)}.")
        return float(figures[name])

    def to_json(self) -> dict[str, float]:
        """Return the figures, and the number of images."""
        return {**self.figures, "num_images": self.num_images}


class TooMuch(Exception):
    """The metrics of all paths together take too much memory; the text says how much."""


class Tallies:
    """What is counted for some paths.

    Parameters
    ----------
    task
        Says what is counted.
    num_paths
        How many there are.
    num_batches
        How many batches there will be; None if it is not known.
    """

    def __init__(self, task: Task, num_paths: int, num_batches: int | None = None):
        self._task = task
        self._num_batches = num_batches
        self._totals: Tensor | None = None
        self._num_paths = num_paths
        self._num_images = [0] * num_paths
        self._metrics: list[Mapping[str, Metric]] = []

    def add(self, path: int, outputs: Tensor, targets: Tensor) -> None:
        """Count what a path returned for a batch; targets are on the same device.

        Raises TooMuch after the first batch of a path.
        """
        sums = _sums(self._task, outputs.float(), targets)
        if self._totals is None:
            # In one piece: small tensors between activations would split the memory.
            self._totals = sums.new_zeros(self._num_paths, len(sums))
            count = self._num_paths
            self._metrics = [self._task.metrics(outputs.shape[1]) for _ in range(count)]
        self._totals[path] += sums
        self._num_images[path] += len(targets)
        if self._metrics[path]:
            values = self._task.for_metrics(outputs.float(), targets)
            predictions, wanted = (value.cpu() for value in values)
            for metric in self._metrics[path].values():
                metric.update(predictions, wanted)
            self._check_memory(path)

    def conclude(self) -> list[Evaluation]:
        """Return the figures of all paths.

        Raises
        ------
        DataError
            There were no images.
        RecipeError
            The task lacks a figure that it names.
        """
        if self._totals is None or not all(self._num_images):
            raise DataError("scoring needs at least one image.")
        return [
            self._figures(path, sums, number)
            for path, (sums, number) in enumerate(
                zip(self._totals.tolist(), self._num_images, strict=True)
            )
        ]

    def _figures(self, path: int, sums: list[float], number: int) -> Evaluation:
        loss, broken, *own = sums
        if broken:
            return Evaluation(self._task.not_finite(), number)
        found = {name: float(m.compute()) for name, m in self._metrics[path].items()}
        found |= {name: float(x) for name, x in self._task.conclude(own, number).items()}
        names = [x.name for x in self._task.figures]
        if missing := [name for name in names if name not in found]:
            raise RecipeError(
                f"task {type(self._task).__name__}: {missing[0]} is one of its figures, and "
                f"neither conclude nor metrics has it, but {', '.join(found) or 'nothing'}."
            )
        ordered = {name: found[name] for name in names}
        return Evaluation({**ordered, LOSS.name: loss / number}, number)

    def _check_memory(self, path: int) -> None:
        if self._num_paths == 1 or self._num_batches is None:
            return
        taken = sum(_num_bytes(list(m.metric_state.values())) for m in self._metrics[path].values())
        needed = taken * self._num_batches * self._num_paths
        self._num_batches = None  # the first batch tells it
        if needed > MOST_BYTES:
            names = ", ".join(self._metrics[path])
            raise TooMuch(
                f"what {names} would keep of all of them takes {needed / 2**30:.1f} GiB of memory"
            )


def _sums(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss, the number of images with outputs that are not finite, and the task's."""
    broken = outputs.flatten(1).isfinite().all(1).logical_not().sum()
    loss = task.total_loss(outputs, targets)
    own = task.tally(outputs, targets)
    return torch.cat([torch.stack([loss, broken]).double(), own.double().reshape(-1)])


def _num_bytes(values: Any) -> int:
    if isinstance(values, Tensor):
        return values.numel() * values.element_size()
    return sum(map(_num_bytes, values)) if isinstance(values, list) else 0
