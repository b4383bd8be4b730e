"""A data set that needs no files: stripes, whose direction is their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nni_spos.data import Dataset, DatasetSpec
from nni_spos.recipe.settings import real, setting, whole_number

SIZE = 16
"""Height and width of an image in pixels."""


@dataclass(frozen=True)
class Stripes(Dataset):
    """Grey images of stripes in noise; the class is the direction of the stripes.

    Parameters
    ----------
    noise
        Standard deviation of the noise, in grey levels.
    num_images
        Images of the training set.
    """

    noise: float = setting(real(0, 255), 40.0)
    num_images: int = setting(whole_number(40), 200)

    ignored = ("root", "download")

    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image."""
        return DatasetSpec(
            name=self.name,
            num_classes=4,
            channels=1,
            native_size=SIZE,
            image_size=SIZE,
            mean=(0.5,),
            std=(0.3,),
            augmentation="shift",
        )

    def open_training_set(self) -> Any:
        """Return images and labels."""
        return self._draw(self.num_images, seed=0)

    def open_test_set(self) -> Any:
        """Return images and labels."""
        return self._draw(80, seed=1)

    def digest_training_images(self) -> None:
        """They follow from the code and the keys, which count anyway."""

    def digest_test_images(self) -> None:
        """They follow from the code and the keys, which count anyway."""

    def _draw(self, number: int, seed: int) -> Any:
        import numpy as np

        generator = np.random.default_rng(seed)
        labels = np.arange(number) % 4
        y, x = np.mgrid[:SIZE, :SIZE]
        angles = (labels * np.pi / 4)[:, None, None]
        phase = generator.uniform(0, 2 * np.pi, (number, 1, 1))
        waves = 128 + 90 * np.sin(x * np.cos(angles) + y * np.sin(angles) + phase)
        noisy = waves + generator.normal(0, self.noise, waves.shape)
        return noisy.clip(0, 255).astype(np.uint8)[:, None], labels
