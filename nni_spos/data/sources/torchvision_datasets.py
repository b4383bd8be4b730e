"""Any data set of torchvision, by the name of its class: ``torchvision:CIFAR100``."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from nni_spos.data.parts import DatasetParts
from nni_spos.data.sources.downloads import (
    DOWNLOAD,
    dataset_root,
    download_lock,
    explained_download,
)
from nni_spos.data.sources.map_style import (
    FROM_SECTION,
    FromFactory,
    make_class,
    parameters_of,
)
from nni_spos.errors import DataError, RecipeError, text_of, unknown
from nni_spos.recipe.data_settings import DataSettings
from nni_spos.recipe.dataset import UNKNOWN

OURS = ("transform", "target_transform", "transforms", "loader", "is_valid_file")
"""Parameters that are no values of a recipe."""

BASES = ("VisionDataset", "DatasetFolder", "LSUNClass")
"""Classes that others are made from."""

TEST_SPLITS = ("test", "val", "valid")
"""Names that classes of torchvision have for what is tested with; the first that there is counts.
"""


@dataclass(frozen=True)
class FromTorchvision(FromFactory):
    """What a class of torchvision gives."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments; without a root the files are in the user's cache."""
        found = super().arguments()
        if "root" in self.takes:
            found["root"] = str(dataset_root(self.settings))
        if "download" in self.takes:  # by default some do
            found["download"] = self.settings.download
        return found

    def open_parts(self) -> DatasetParts:
        """Make the training set, and say how to make the others."""
        parts = super().open_parts()
        if "split" not in self.takes or "train" in self.takes:
            return parts
        own: Any = self
        is_given = "test_split" in self.settings.arguments
        return parts if is_given else dataclasses.replace(parts, test=self._test(own.split))

    def call(self, **more: Any) -> Any:
        """Make a data set, downloading it if the recipe says so. Raises DataError."""
        root = dataset_root(self.settings)
        try:
            if not self.settings.download or "download" not in self.takes:
                return super().call(**more)
            with download_lock(root), explained_download(self.name, root):
                return super().call(**more)
        except (RuntimeError, OSError) as problem:
            what_to_do = f"{DOWNLOAD}, or put its files into {root}."
            if "download" not in self.takes:
                what_to_do = f"torchvision does not download it. Put its files into {root}."
            raise DataError(
                f"data set {self.name}: cannot be read in {root} ({text_of(problem)}). {what_to_do}"
            ) from None

    def digest_training_images(self) -> str | None:
        """Say nothing of what is published, or follows from the keys: it is always the same."""
        is_published = "download" in self.takes or "root" not in self.takes
        return None if is_published else UNKNOWN

    def _test(self, training: str) -> Any:
        """Return what makes the test set: of the first name that the class knows."""

        def make() -> Any:
            for name in TEST_SPLITS:
                try:
                    if name != training:
                        return self.call(split=name)
                except ValueError:  # it names the splits that there are
                    continue
            return None

        return make


@functools.lru_cache(maxsize=16)
def find_class(name: str) -> type[FromTorchvision]:
    """Return the data set that a class of torchvision is behind; this imports torchvision.

    Raises
    ------
    RecipeError
        There is no such class.
    """
    from torchvision import datasets

    names = [x for x in datasets.__all__ if hasattr(getattr(datasets, x), "__getitem__")]
    names = [x for x in names if x not in BASES]
    if name not in names:
        raise RecipeError(unknown("data set of torchvision", name, names))
    factory = getattr(datasets, name)
    common = {x.name for x in dataclasses.fields(DataSettings) if x.metadata} - {*FROM_SECTION}
    parameters = {
        key: parameter
        for key, parameter in parameters_of(factory).items()
        if key not in OURS and key not in common
    }
    return make_class(factory, parameters, base=FromTorchvision)
