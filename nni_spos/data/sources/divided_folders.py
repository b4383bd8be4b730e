"""What data sets have in common whose training and test files lie in folders of these names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import ClassVar

from nni_spos.errors import DataError
from nni_spos.recipe.dataset import Dataset
from nni_spos.recipe.image_digest import digest_folder

TEST_FOLDERS = ("val", "validation", "test")
"""Folders that may have the test files; the first that is there has them."""


@dataclass(frozen=True)
class DividedFolders(Dataset):
    """Files in the folder ``train`` and, for the test, in ``val``, ``validation`` or ``test``."""

    contents: ClassVar[str]
    """What ``root`` has to have, in words."""

    @property
    def has_test_set(self) -> bool:
        """Whether there is a folder of test images."""
        return self.settings.root is not None and self.test_folder() is not None

    def digest_training_images(self) -> str | None:
        """Return a digest of names, sizes and contents of all files."""
        root = self.settings.root
        return None if root is None else digest_folder(FilePath(root) / "train")

    def digest_test_images(self) -> str | None:
        """Return a digest of names, sizes and contents of all files."""
        folder = self.test_folder() if self.has_test_set else None
        return None if folder is None else digest_folder(folder)

    def root(self) -> FilePath:
        """Return the folder of the files. Raises DataError if the recipe does not name it."""
        if self.settings.root is None:
            raise DataError(
                f"{self.name}: the recipe's data section needs 'root', a folder with "
                f"{self.contents}."
            )
        return FilePath(self.settings.root)

    def test_folder(self) -> FilePath | None:
        """Return the folder of the test files; None if there is none. Raises DataError."""
        places = [self.root() / name for name in TEST_FOLDERS]
        return next((x for x in places if x.is_dir()), None)
