"""Images of a cross, whose place is to be found: small data that nobody has to download."""

from dataclasses import dataclass

import numpy as np

from nni_spos.data import Dataset, DatasetSpec
from nni_spos.recipe.settings import POSITIVE_INT, setting

SIZE = 32


@dataclass(frozen=True)
class Crosses(Dataset):
    """A bright cross on noise; its x and y, from -1 to 1, are the values to predict.

    Parameters
    ----------
    num_images
        How many images are drawn for training and search; half as many for the test.
    """

    num_images: int = setting(POSITIVE_INT, 600)

    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name=self.name,
            num_classes=2,  # the number of values
            channels=1,
            native_size=SIZE,
            image_size=SIZE,
            mean=(0.4,),
            std=(0.25,),
            augmentation="none",  # a shifted image would need shifted values
            target="values",
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
        images = generator.normal(90, 30, (number, 1, SIZE, SIZE))
        places = generator.integers(4, SIZE - 4, (number, 2))
        for image, (x, y) in zip(images[:, 0], places, strict=True):
            image[y - 3 : y + 4, x] = image[y, x - 3 : x + 4] = 230
        values = places / (SIZE - 1) * 2 - 1
        return images.clip(0, 255).astype(np.uint8), values.astype(np.float32)
