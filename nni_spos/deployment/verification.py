"""The proof that a file computes what the network computes: outputs, and how well it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nni_spos.deployment.sources import Source
from nni_spos.errors import ExportError
from nni_spos.export.base import ExportForm, Run
from nni_spos.export.images import InputImages
from nni_spos.scoring.tallies import Tallies
from nni_spos.tasks.base import Task

NUM_IMAGES = 1000
"""Search-validation images that a file is compared on, by default."""

TOLERANCE = 1e-4
"""Largest difference of outputs, in parts of the largest output, or absolute if that is below 1."""

AGREEMENT = 99.9
"""Percent of answers that must be the same if the network rounds to levels: where the last digit
of a float differs, a value may fall on the next level."""

INT8_AGREEMENT = 90.0
"""The same for a float network that was made one of whole numbers."""

BATCH = 50


@dataclass(frozen=True)
class Limits:
    """What a file may differ by.

    Parameters
    ----------
    difference
        Largest difference of outputs, relative to the largest output, or absolute if that is below
        1; None: it is not limited.
    agreement
        Percent of the answers that must be the same.
    """

    difference: float | None = TOLERANCE
    agreement: float = AGREEMENT


@dataclass(frozen=True)
class Verification:
    """How a file compares with its network.

    Parameters
    ----------
    images
        Which ones it was compared on, for people.
    num_images
        How many.
    largest_difference
        Of any output.
    largest_output
        Of the network, its magnitude.
    agreement_percent
        Images for which both give the same answer: the class, all labels, or the classes of so many
        pixels; None of values.
    network, file
        Figures of the task; None on random images.
    limits
        What was allowed.
    """

    images: str
    num_images: int
    largest_difference: float
    largest_output: float
    agreement_percent: float | None
    network: Mapping[str, float] | None
    file: Mapping[str, float] | None
    limits: Limits

    @property
    def relative_difference(self) -> float:
        """The largest difference in parts of the largest output, if that is above 1."""
        return self.largest_difference / max(1.0, self.largest_output)

    def problem(self) -> str:
        """Return why the file is not the network, or ""."""
        limits, agreed = self.limits, self.agreement_percent
        if limits.difference is not None and not self.relative_difference <= limits.difference:
            return (
                f"its outputs differ from the network's by up to {self.largest_difference:.3g}, "
                f"where these reach {self.largest_output:.3g}; allowed is "
                f"{limits.difference:g} of that"
            )
        if agreed is not None and agreed < limits.agreement:
            return (
                f"it gives the network's answer for {agreed:.2f} % of {self.num_images} images; "
                f"at least {limits.agreement:g} % are needed"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return dataclasses.asdict(self)


def verify(
    source: Source, network: nn.Module, run: Run, form: ExportForm, limits: Limits, *, number: int,
    test: bool = False,
) -> Verification:  # fmt: skip
    """Compare what a file computes with what the network computes.

    Parameters
    ----------
    source
        Gives images: of the search-validation split, or random ones without a recipe.
    network
        As it was found, in evaluation mode.
    run
        Runs the file.
    form
        How it was exported.
    limits
        What it may differ by.
    number
        Of images.
    test
        Whether they are test images instead.

    Raises
    ------
    ExportError
        Test images are asked for without a recipe.
    """
    if source.data is None:
        if test:
            raise ExportError("--test: test images are those of a recipe. Name it: --recipe FILE.")
        batches: Iterable[tuple[Tensor, Tensor | None]] = _random(source.images, number)
        name = "random images"
    elif test:
        batches, name = source.test(number, BATCH), "test images"
    else:
        batches, name = source.validation(number, BATCH), "search-validation images"
    comparison = _OutputComparison(source.task, source.data is not None)
    images_of = source.images
    with torch.inference_mode():
        for images, targets in batches:
            wanted = network(images)
            found = torch.from_numpy(_run(run, images, images_of, form)).reshape(wanted.shape)
            comparison.add(wanted, found, targets)
    return comparison.conclude(name, limits)


def _run(run: Run, images: Tensor, kind: InputImages, form: ExportForm) -> Any:
    """Return outputs of the file, which may take fewer images at a time, or pixels."""
    values = images.numpy()
    if form.takes_pixels:
        values = kind.pixels_of(values)
    if form.batch is None:
        return run(values)
    # Images that do not fill a batch begin again from the first one.
    order = np.arange(-(-len(values) // form.batch) * form.batch) % len(values)
    parts = [run(values[places]) for places in order.reshape(-1, form.batch)]
    return np.concatenate(parts)[: len(values)]


def _random(images: InputImages, number: int) -> Iterator[tuple[Tensor, None]]:
    for start in range(0, number, BATCH):
        yield torch.from_numpy(images.random(min(BATCH, number - start), seed=start)), None


class _OutputComparison:
    """What is counted batch by batch."""

    def __init__(self, task: Task | None, scored: bool):
        self._task = task
        self._tallies = [Tallies(task, num_paths=1) for _ in range(2)] if task and scored else []
        self._number = 0
        self._agreed = 0.0
        self._difference = self._largest = 0.0

    def add(self, wanted: Tensor, found: Tensor, targets: Tensor | None) -> None:
        self._number += len(wanted)
        difference = (wanted.double() - found.double()).abs().max().item()
        # A difference that is no number is larger than any.
        self._difference = max(self._difference, difference if difference == difference else 1e308)
        self._largest = max(self._largest, wanted.abs().max().item())
        self._agreed += _agreeing(wanted, found, self._task)
        for tallies, outputs in zip(self._tallies, (wanted, found), strict=False):
            assert targets is not None
            tallies.add(0, outputs, targets)

    def conclude(self, name: str, limits: Limits) -> Verification:
        figures = [x.conclude()[0].to_json() for x in self._tallies]
        is_values = self._task is not None and self._task.targets[0] == "values"
        agreement = None if is_values else 100 * self._agreed / self._number
        return Verification(
            images=name,
            num_images=self._number,
            largest_difference=self._difference,
            largest_output=self._largest,
            agreement_percent=agreement,
            network=figures[0] if figures else None,
            file=figures[1] if figures else None,
            limits=limits,
        )


def _agreeing(wanted: Tensor, found: Tensor, task: Task | None) -> float:
    """Return for how many images both give one answer; of masks the share of the pixels counts."""
    kind = task.targets[0] if task else "class"
    if kind == "labels":
        threshold = torch.tensor(getattr(task, "threshold", 0.5)).logit()
        return float(((wanted >= threshold) == (found >= threshold)).all(1).sum())
    same = wanted.argmax(1) == found.argmax(1)
    return float(same.float().flatten(1).mean(1).sum() if same.dim() > 1 else same.sum())
