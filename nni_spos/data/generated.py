"""Images that nobody took, for seeing whether a network runs on images of a data set's shape."""

from __future__ import annotations

import numpy as np
import torch

from nni_spos.data.datasets import DatasetSpec
from nni_spos.data.evaluation import EvaluationBatches
from nni_spos.data.loaders import ImageData
from nni_spos.data.reading import Batch, ImageSplit
from nni_spos.data.stores import ImageTensor
from nni_spos.data.transforms import ImageTransform, Normalisation


class GeneratedData(ImageData):
    """Noise with the shape, the classes and the normalisation of a data set; no file is read.

    Parameters
    ----------
    spec
        Of the data set.
    num_train, num_validation
        Images for recalibration, and for the score.
    """

    def __init__(self, spec: DatasetSpec, num_train: int, num_validation: int):
        self.spec = spec
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
        pixels, labels = self._split(self.num_train).__getitems__(np.arange(self.num_train))
        return Normalisation(self.spec)(pixels), labels

    def _split(self, num_images: int) -> ImageSplit:
        generator = np.random.default_rng(0)
        pixels = generator.integers(256, size=(num_images, *self.spec.input_shape), dtype=np.uint8)
        labels = np.arange(num_images) % self.spec.num_classes
        store = ImageTensor(torch.from_numpy(pixels), labels)
        return ImageSplit(store, np.arange(num_images), ImageTransform(self.spec))
