"""Batches for evaluation: always the same images, in the same order, on any device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_spos.data.held import HeldImages
from nni_spos.data.reading import Batch, ImageSplit, read_batches
from nni_spos.data.transforms import Normalisation
from nni_spos.display.progress import note_progress
from nni_spos.recipe.dataset import DatasetSpec


@dataclass(frozen=True)
class EvaluationBatches:
    """Images prepared for evaluation, always the same ones in the same order.

    Held images are decoded by the first iteration; every further one only makes floats of the
    bytes of a batch. Images are the receiver's own; do not change targets in place.

    Parameters
    ----------
    spec
        Says how images are normalised.
    split
        The images.
    batch_size
        Images in a batch; the last one may be smaller.
    workers
        Processes that read images which are not held; 0: this one.
    hold
        Returns the images of `split` if they can be held; None: they are read by every iteration.
    device
        Where images and targets are handed out.
    channels_last
        Memory format of the images.
    """

    spec: DatasetSpec
    split: ImageSplit
    batch_size: int
    workers: int
    hold: Callable[[], HeldImages | None] | None = None
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    channels_last: bool = False

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    @property
    def num_images(self) -> int:
        """Number of images in all batches."""
        return len(self.split)

    def to(self, device: torch.device | str, channels_last: bool = True) -> EvaluationBatches:
        """Return the same batches on a device, in a memory format.

        Only bytes are sent to the device, which normalises them; their values are those of the
        CPU.
        """
        return dataclasses.replace(self, device=torch.device(device), channels_last=channels_last)

    def __iter__(self) -> Iterator[Batch]:
        normalise = Normalisation(self.spec, self.device, self.channels_last)
        for pixels, targets in self._stored():
            note_progress()
            targets = self._sent(targets)
            whole = targets if targets.is_floating_point() else targets.long()  # held masks
            yield normalise(self._sent(pixels)), whole

    def _stored(self) -> Iterator[Batch]:
        """Return batches of pixels, not normalised, and targets."""
        held = self.hold() if self.hold else None
        if held is not None:
            return held.batches(self.batch_size)
        keys = [part.tolist() for part in torch.arange(len(self.split)).split(self.batch_size)]
        return read_batches(self.split, keys, len(keys), self.workers)

    def _sent(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda":
            values = values.pin_memory()  # else the copy would wait for what the GPU is doing
        return values.to(self.device, non_blocking=True)
