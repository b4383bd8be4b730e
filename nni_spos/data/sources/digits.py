"""Handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nni_spos.recipe.dataset import Dataset, DatasetSpec


@dataclass(frozen=True)
class Digits(Dataset):
    """1,797 grey images of 10 digits, of which 360 are the test set."""

    ignored = ("root", "download")

    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image."""
        return DatasetSpec(self.name, 10, 1, 8, 16, (0.3054,), (0.3760,), "shift")

    def open_training_set(self) -> Any:
        """Return images and labels."""
        return _images_and_labels(part=0)

    def open_test_set(self) -> Any:
        """Return images and labels."""
        return _images_and_labels(part=1)

    def digest_training_images(self) -> None:
        """They are always the same ones."""

    def digest_test_images(self) -> None:
        """They are always the same ones."""


def _images_and_labels(part: int) -> Any:
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    # Which fifth is the test set must never change, hence the fixed seed.
    parts = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=0
    )
    indices = np.sort(parts[part])
    pixels = np.rint(digits.images[indices] * (255 / 16)).astype(np.uint8)
    return pixels[:, None], digits.target[indices]
