"""Images in folders, one for each class, as torchvision and timm have them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from nni_spos.data.sources.divided_folders import TEST_FOLDERS, DividedFolders
from nni_spos.data.sources.files import decoded_as
from nni_spos.errors import DataError
from nni_spos.recipe.dataset import DatasetSpec
from nni_spos.recipe.image_digest import class_names

if TYPE_CHECKING:
    from nni_spos.data.stores import ImageFiles


@dataclass(frozen=True)
class ImageFolder(DividedFolders):
    """RGB or grey images of any size in ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``."""

    contents = "train/CLASS/*.jpg and val/CLASS/*.jpg"

    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image: the classes are the folders."""
        root = self.settings.root
        folders = [] if root is None else class_names(FilePath(root) / "train")
        return DatasetSpec(
            name=self.name,
            num_classes=self.settings.num_classes or len(folders),
            **decoded_as(self.settings),
            native_size=None,
            image_size=224,
            augmentation="imagenet",
            crop_pct=224 / 256,
        )

    def class_names(self) -> list[str]:
        """Return the names of the folders."""
        root = self.settings.root
        return [] if root is None else class_names(FilePath(root) / "train")

    def open_training_set(self) -> ImageFiles:
        """Open the files of ``train``. Raises DataError."""
        root = self.root()
        training = self._open_training()
        if (tested := _try_images(self.test_folder())) is not None:
            _check_apart(tested, training, root)  # before a training, not behind it
        return training

    def open_test_set(self) -> ImageFiles:
        """Open the files of ``val``, ``validation`` or ``test``. Raises DataError."""
        root, folder = self.root(), self.test_folder()
        training = self._open_training()
        if folder is None:
            raise DataError(
                f"image_folder: {root} has no test images. Put them into val/CLASS/ "
                f"(or validation/CLASS/ or test/CLASS/), with the classes of train/."
            )
        classes = _classes(root / "train")
        different = sorted(set(classes) ^ set(_classes(folder)))
        if different:
            raise DataError(
                f"image_folder: the class folder '{different[0]}' is in only one of "
                f"{root / 'train'} and {folder}; both must have the same classes."
            )
        images = self._files(folder, classes)
        _check_apart(images, training, root)
        return images

    def missing(self) -> list[str]:
        """Return what is missing among the folders, a sentence each."""
        if self.settings.root is None:
            return []
        # Without '..', so that it can be read and copied.
        root = FilePath(os.path.realpath(self.root()))
        num_classes = self.settings.num_classes
        number = len(class_names(root / "train"))
        if not number:
            return [
                f"there are no images in {root / 'train'} yet. Before you train, put them "
                f"into {root}/train/CLASS/ and {root}/val/CLASS/."
            ]
        if num_classes not in (None, number):
            return [
                f"num_classes is {num_classes}, but {root / 'train'} has {number} class "
                "folders. Before you train, make them agree."
            ]
        has_test = any(class_names(root / name) for name in TEST_FOLDERS)
        if not has_test and self.settings.num_test is None:
            return [
                "there are no test images yet. Before you retrain, put them into "
                f"{root}/val/CLASS/, or set 'num_test'."
            ]
        return []

    def _open_training(self) -> ImageFiles:
        folder = self.root() / "train"
        classes = _classes(folder)
        if len(classes) != self.spec().num_classes:
            raise DataError(
                f"image_folder: {folder} has {len(classes)} class folders, but the recipe's "
                f"data section says num_classes = {self.settings.num_classes}."
            )
        return self._files(folder, classes)

    def _files(self, folder: FilePath, classes: list[str]) -> ImageFiles:
        from nni_spos.data.stores import ImageFiles

        return ImageFiles(folder, classes, self.spec().channels, self.settings.bits)


def _classes(folder: FilePath) -> list[str]:
    names = class_names(folder)
    if not names:
        raise DataError(
            f"image_folder: {folder} has no class folders. The root must have train/CLASS/*.jpg "
            "and val/CLASS/*.jpg."
        )
    return names


def _try_images(folder: FilePath | None) -> ImageFiles | None:
    """Return the images of a test set, if it is as it should be: else only a test needs to know."""
    from nni_spos.data.stores import ImageFiles

    try:
        return None if folder is None else ImageFiles(folder, class_names(folder))
    except DataError:
        return None


def _check_apart(tested: ImageFiles, training: ImageFiles, root: FilePath) -> None:
    """Refuse a test set that has a file of the training set. Raises DataError."""
    if file := tested.find_common(training):
        raise DataError(
            f"image_folder: {file} is in {root / 'train'} as well, so that a test of it would tell "
            "nothing. Remove one of them."
        )
