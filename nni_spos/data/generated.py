"""Images that nobody took, for seeing whether a network runs on images of a data set's shape."""

from __future__ import annotations

import numpy as np
import torch

from nni_spos.data.evaluation import EvaluationBatches
from nni_spos.data.loaders import ImageData
from nni_spos.data.reading import Batch, ImageSplit
from nni_spos.data.stores import ImageTensor
from nni_spos.data.targets import generate_targets
from nni_spos.data.transforms import ImageTransform, Normalisation
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.task import TaskSettings, find_task
from nni_spos.tasks.base import Task


class GeneratedData(ImageData):
    """Noise with the shape, the classes and the normalisation of a data set; no file is read.

    Parameters
    ----------
    spec
        Of the data set.
    num_train, num_validation
        Images for recalibration, and for the score.
    task
        What a network is to predict; by default a classification.
    """

    def __init__(
        self, spec: DatasetSpec, num_train: int, num_validation: int, task: Task | None = None
    ):
        self.spec = spec
        self.task = task or find_task(TaskSettings())
        self._sizes = (num_train, num_validation)

    @property
    def num_train(self) -> int:
        """Number of training images."""
        return self._sizes[0]

    @property
    def num_validation(self) -> int:
        """Number of search-validation images."""
        return self._sizes[1]

    def recalibration_batches(
        self, num_images: int, batch_size: int, seed: int
    ) -> EvaluationBatches:
        """Return so many images."""
        return EvaluationBatches(self.spec, self._split(num_images), batch_size, 0)

    def validation_batches(self, batch_size: int) -> EvaluationBatches:
        """Return the validation images."""
        return EvaluationBatches(self.spec, self._split(self.num_validation), batch_size, 0)

    def train_batch(self) -> Batch:
        """Return all training images as one batch."""
        pixels, targets = self._split(self.num_train).__getitems__(np.arange(self.num_train))
        return Normalisation(self.spec)(pixels), targets

    def _split(self, num_images: int) -> ImageSplit:
        generator = np.random.default_rng(0)
        shape, bits = (num_images, *self.spec.input_shape), f"uint{self.spec.bits}"
        pixels = generator.integers(self.spec.largest + 1, size=shape, dtype=bits)
        if self.spec.is_prepared:
            pixels = np.float32(pixels / self.spec.largest)
        store = ImageTensor(torch.from_numpy(pixels), generate_targets(self.spec, num_images))
        return ImageSplit(store, np.arange(num_images), ImageTransform(self.spec))
