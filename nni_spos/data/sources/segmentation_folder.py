"""Images with masks, in folders beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from nni_spos.data.sources.divided_folders import DividedFolders
from nni_spos.data.sources.files import decoded_as
from nni_spos.errors import DataError
from nni_spos.recipe.dataset import DatasetSpec

if TYPE_CHECKING:
    from nni_spos.data.masks import MaskedFiles


@dataclass(frozen=True)
class SegmentationFolder(DividedFolders):
    """Images in ``train/images`` and ``val/images``, with masks in ``train/masks`` and so on.

    A mask has the name of its image, but for the ending. The value of a pixel is the number of its
    class, from 0 on; 255 does not count.
    """

    contents = "train/images, train/masks, val/images and val/masks"

    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image."""
        return DatasetSpec(
            name=self.name,
            num_classes=self.settings.num_classes or 0,
            **decoded_as(self.settings),
            native_size=None,
            image_size=224,
            augmentation="imagenet",
            crop_pct=1.0,
            target="mask",
        )

    def open_training_set(self) -> MaskedFiles:
        """Open the files of ``train``. Raises DataError."""
        return self._open(self.root() / "train")

    def open_test_set(self) -> MaskedFiles:
        """Open the files of ``val``, ``validation`` or ``test``. Raises DataError."""
        folder = self.test_folder()
        if folder is None:
            raise DataError(
                f"{self.name}: {self.root()} has no test images. Put them into val/images, and "
                "their masks into val/masks."
            )
        return self._open(folder)

    def _open(self, folder: FilePath) -> MaskedFiles:
        from nni_spos.data.masks import open_masked

        if not self.settings.num_classes:
            raise DataError(
                f"{self.name}: the recipe's data section needs 'num_classes', the number of "
                "classes that a pixel can have."
            )
        pixels = (self.spec().channels, self.settings.bits)
        return open_masked(str(folder), self.settings.num_classes, *pixels)
