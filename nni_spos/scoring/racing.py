"""Drop paths that cannot be among the best after a part of the validation images.

Two paths are compared on the same images, image by image: what is hard for one is hard for the
other, so their difference is known long before their scores are. A path is dropped as soon as
enough others are better than it with high probability.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nni_spos.scoring.tallies import Evaluation
from nni_spos.tasks.base import LOG_LIKELIHOOD, LOSS, Task

LOOKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the images after which paths may be dropped."""

ERROR = 0.01
"""Largest probability, over all looks, that a path is dropped which would be among the best."""

Values = npt.NDArray[np.float32]


class Race:
    """The best paths so far, with what each image gave for them.

    Parameters
    ----------
    places
        How many of the best are to be found; only paths that cannot be among them are dropped.
    objective
        What a path is to be good at, one of the task's ``image_figures``.
    task
        Says what an image gives.

    Attributes
    ----------
    num_scored, num_images : int
        Images that were scored, and that would have been without a race, of all paths so far.
    """

    def __init__(self, places: int, objective: str, task: Task):
        self.places = places
        self.objective = objective
        self.task = task
        self.leaders: list[Values] = []
        self.num_scored = 0
        self.num_images = 0

    def start(self, num_paths: int, num_images: int) -> Heat:
        """Begin to score some paths together, each on so many images."""
        return Heat(self, num_paths, num_images)


class Heat:
    """Paths that are scored together; made by `Race.start`.

    Parameters
    ----------
    race
        Whose leaders they run against.
    num_paths, num_images
        See `Race.start`.
    """

    def __init__(self, race: Race, num_paths: int, num_images: int):
        self._race = race
        self._values: Values = np.zeros((num_paths, num_images), dtype=np.float32)
        self._num_seen = np.zeros(num_paths, dtype=np.int64)
        self._beaten: list[tuple[int, int]] = []
        """Paths that were dropped, in their order, and for each one that is better."""
        self._size = num_images
        # Of the numbering here: leaders come behind the paths.
        known = [x for x in race.leaders if len(x) == num_images]
        self._all = [*range(num_paths), *range(num_paths, num_paths + len(known))]
        self._rows: list[Values] = [*self._values, *known]
        self._left = list(range(num_paths))

    @property
    def left(self) -> list[int]:
        """Numbers of the paths that are not dropped."""
        return list(self._left)

    def rounds(self, num_batches: int) -> list[int]:
        """Return how many batches there are before each look, and before the end."""
        ends = sorted({max(1, round(share * num_batches)) for share in LOOKS} | {num_batches})
        return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]

    def add(self, path: int, outputs: Tensor, targets: Tensor) -> None:
        """Take what a path returned for a batch."""
        found = self._race.task.image_values(self._race.objective, outputs.float(), targets)
        values = found.to(torch.float32).cpu().numpy()
        begin = self._num_seen[path]
        self._values[path, begin : begin + len(values)] = values
        self._num_seen[path] += len(values)

    def drop(self) -> list[int]:
        """Drop the paths that cannot be among the best, and return their numbers."""
        seen = int(self._num_seen[self._left[0]]) if self._left else self._size
        rivals = [*self._left, *self._all[len(self._values) :]]
        if seen >= self._size or len(rivals) <= self._race.places:
            return []
        rows = np.array([self._rows[i][:seen] for i in rivals], dtype=np.float64)
        # In terms of the differences: they are found for all pairs by one product.
        means = rows.mean(axis=1)
        centred = rows - means[:, None]
        products = centred @ centred.T / seen
        spread = np.diag(products)
        variances = spread[:, None] + spread[None, :] - 2 * products
        differences = means[:, None] - means[None, :]
        # Of images that agree so far, one more might not.
        scale = float(np.abs(rows).max(initial=0.0)) or 1.0
        variances = np.maximum(variances, scale**2 / seen)
        deviations = np.sqrt(variances * (self._size - seen) / (self._size * seen))
        loses = differences < _quantile(ERROR / len(LOOKS)) * deviations
        # Losers behind the first rows, which are those of the paths, are leaders, and stay.
        is_out = loses[: len(self._left)].sum(axis=1) >= self._race.places
        stays = np.concatenate([~is_out, np.ones(len(rivals) - len(is_out), dtype=bool)])
        for place in np.flatnonzero(is_out).tolist():
            # The nearest of those that are better: what it lacks is known best.
            candidates = np.where(loses[place] & stays, differences[place], -np.inf)
            self._beaten.append((self._left[place], rivals[int(candidates.argmax())]))
        dropped = [self._left[place] for place in np.flatnonzero(is_out).tolist()]
        self._left = [i for i in self._left if i not in dropped]
        return dropped

    def conclude(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """Return the figures, with an estimate of the objective for each path that was dropped.

        It is the score of a better path, less how much worse it was on the same images, and below
        the best.
        """
        race = self._race
        race.num_scored += int(self._num_seen.sum())
        race.num_images += self._size * len(self._values)
        finished = [*self._left, *self._all[len(self._values) :]]
        scores = {i: float(self._rows[i].mean(dtype=np.float64)) for i in finished}
        ranked = sorted((scores[i] for i in finished), reverse=True)
        limit = ranked[race.places - 1] if len(ranked) >= race.places else math.inf
        found = list(evaluations)
        # Who was better than one that was dropped may have been dropped later.
        for path, better in reversed(self._beaten):
            seen = int(self._num_seen[path])
            lost = (self._rows[better][:seen] - self._rows[path][:seen]).mean(dtype=np.float64)
            below = float(np.nextafter(limit, -math.inf))
            scores[path] = min(scores[better] - float(lost), below)
            found[path] = self._estimated(evaluations[path], scores[path])
        keep = sorted(finished, key=lambda i: -scores[i])[: race.places]
        race.leaders = [np.array(self._rows[i]) for i in keep if math.isfinite(scores[i])]
        return found

    def _estimated(self, evaluation: Evaluation, score: float) -> Evaluation:
        name, value = self._race.objective, score
        if name == LOG_LIKELIHOOD:
            name, value = LOSS.name, -score
        if math.isnan(evaluation.figures[name]):  # its outputs are not finite
            return evaluation
        return dataclasses.replace(evaluation, figures={**evaluation.figures, name: value})


def _quantile(probability: float) -> float:
    """Return a quantile of the normal distribution."""
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))
