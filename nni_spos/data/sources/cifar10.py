"""CIFAR-10, as torchvision reads and checks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nni_spos.data.sources.downloads import (
    DOWNLOAD,
    dataset_root,
    download_lock,
    explained_download,
)
from nni_spos.errors import DataError
from nni_spos.recipe.dataset import Dataset, DatasetSpec


@dataclass(frozen=True)
class Cifar10(Dataset):
    """50,000 and 10,000 RGB images of 32 x 32 pixels, in 10 classes."""

    ignored = ()

    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image."""
        return DatasetSpec(
            name=self.name,
            num_classes=10,
            channels=3,
            native_size=32,
            image_size=32,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2470, 0.2435, 0.2616),
            augmentation="crop_flip",
        )

    def class_names(self) -> list[str]:
        """Return the names of the classes."""
        return [
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ]

    def open_training_set(self) -> Any:
        """Return images and labels. Raises DataError."""
        # torchvision checks, so reads, the files of both lists.
        return self._open(unread="test_list", is_training=True)

    def open_test_set(self) -> Any:
        """Return images and labels. Raises DataError."""
        return self._open(unread="train_list", is_training=False)

    def digest_training_images(self) -> None:
        """torchvision refuses any others."""

    def digest_test_images(self) -> None:
        """torchvision refuses any others."""

    def _open(self, unread: str, *, is_training: bool) -> Any:
        import numpy as np
        from torchvision.datasets import CIFAR10
        from torchvision.datasets.utils import check_integrity

        part: Any = type("Part", (CIFAR10,), {unread: []})
        root = dataset_root(self.settings)
        try:
            if self.settings.download:
                with download_lock(root), explained_download("cifar10", root):
                    dataset = part(root, train=is_training, download=True)
            else:
                dataset = part(root, train=is_training)
        except (RuntimeError, OSError):
            # torchvision says "not found or corrupted"; find out which.
            folder = root / part.base_folder
            lists = (*part.train_list, *part.test_list, (part.meta["filename"], part.meta["md5"]))
            bad = [folder / name for name, md5 in lists if not check_integrity(folder / name, md5)]
            if bad and bad[0].exists():
                raise DataError(f"cifar10: {bad[0]} is damaged. Delete it. {DOWNLOAD}.") from None
            raise DataError(
                f"cifar10: {bad[0].name if bad else 'data_batch_1'} is not in {folder}. "
                f"{DOWNLOAD}, or unpack {part.filename} into {root}."
            ) from None
        images = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))
        return images, np.array(dataset.targets)
