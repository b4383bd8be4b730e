"""Images of discs and squares, with masks: small data that nobody has to download."""

from dataclasses import dataclass

import numpy as np

from nni_spos.data import Dataset, DatasetSpec
from nni_spos.recipe.settings import POSITIVE_INT, setting

SIZE = 32


@dataclass(frozen=True)
class Shapes(Dataset):
    """A disc (class 1) and a square (class 2) on noise (class 0), each of a random place and size.

    Parameters
    ----------
    num_images
        How many images are drawn for training and search; half as many for the test.
    """

    num_images: int = setting(POSITIVE_INT, 400)

    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name=self.name,
            num_classes=3,
            channels=3,
            native_size=SIZE,
            image_size=SIZE,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            augmentation="crop_flip",
            target="mask",
        )

    def open_training_set(self):
        return self._draw(self.num_images, seed=0)

    def open_test_set(self):
        return self._draw(self.num_images // 2, seed=1)

    def digest_training_images(self):
        return None  # always the same ones

    def digest_test_images(self):
        return None

    def _draw(self, number: int, seed: int):
        generator = np.random.default_rng(seed)
        y, x = np.mgrid[:SIZE, :SIZE]
        masks = np.zeros((number, SIZE, SIZE), np.uint8)
        for mask in masks:
            for shape in (1, 2):
                (top, left), radius = generator.integers(6, SIZE - 6, 2), generator.integers(4, 8)
                far = (y - top) ** 2 + (x - left) ** 2 if shape == 1 else None
                inside = (
                    far < radius**2
                    if far is not None
                    else np.maximum(abs(y - top), abs(x - left)) < radius
                )
                mask[inside] = shape
        colours = np.array([[120, 120, 120], [170, 110, 100], [100, 120, 170]])[masks]
        noisy = colours + generator.normal(0, 30, colours.shape)
        return noisy.clip(0, 255).astype(np.uint8).transpose(0, 3, 1, 2), masks
