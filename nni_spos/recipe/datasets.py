"""The data sets that a recipe can name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path as FilePath
from types import ModuleType
from typing import Any

from nni_spos.components import Registry, load
from nni_spos.errors import RecipeError
from nni_spos.recipe.code_digest import INSTALLED

FAMILIES: Mapping[str, str] = {
    "torchvision": "nni_spos.data.sources.torchvision_datasets:find_class",
    "huggingface": "nni_spos.data.sources.huggingface:find_class",
}
"""Prefixes of names that stand for many data sets, and the functions that find one by the rest."""

ALL_ALIKE = ("huggingface",)
"""Those whose data sets all have the same keys."""

WRAP = "nni_spos.data.sources.map_style:wrapped"
"""Makes a data set of a function or class that gives PyTorch's map-style data sets."""


class DatasetRegistry(Registry[Any]):
    """Data sets by name; also the functions and classes that give PyTorch's."""

    also = "torchvision:CLASS, huggingface:NAME or module:Class"

    def families(self) -> dict[str, Any]:
        """Return data sets by the prefix of their names, which have the same keys."""
        return {family: load(FAMILIES[family])("") for family in ALL_ALIKE}

    def find(self, name: str, folder: FilePath | None = None) -> Any:
        """Import a data set; see `Registry.find`."""
        family, _, rest = name.partition(":")
        if family in FAMILIES:
            if not rest:
                raise RecipeError(f"{self.kind} {name}: write what is to be found: {family}:NAME.")
            return load(FAMILIES[family])(rest)
        found = super().find(name, folder)
        return found if self._is_dataset(found) else load(WRAP)(found)

    def module_of(self, name: str) -> str | None:
        """Return the module of a data set that is not ours; see `Registry.module_of`."""
        return None if name.partition(":")[0] in FAMILIES else super().module_of(name)

    def problem(self, found: Any, module: ModuleType) -> str:
        """Return why what was found cannot be a data set, or give some, or "".

        What an installed package defines is called only if it is PyTorch's kind of data set, or
        stands in a module that knows one: a recipe would run any command with ``os:system``.
        """
        is_class = inspect.isclass(found)
        if not is_class and not inspect.isfunction(found):
            return f"is a {type(found).__name__}, not a class or function."
        if is_class and hasattr(found, "__len__") and not hasattr(found, "__getitem__"):
            return f"the class {found.__name__} has no __getitem__, which gives a sample."
        if is_class and (self._is_dataset(found) or not hasattr(found, "__getitem__")):
            if hasattr(found, "__iter__") and not self._is_dataset(found):
                return (
                    f"the class {found.__name__} can only be iterated over. A data set needs "
                    "__len__ and __getitem__."
                )
            return super().problem(found, module)
        if is_class and not hasattr(found, "__len__"):
            return (
                f"the class {found.__name__} has no __len__. A data set needs __len__, the "
                "number of its images, and __getitem__."
            )
        if not _may_be_called(found, module):
            return (
                f"'{found.__name__}' of '{module.__name__}' does not say that it gives data sets. "
                "Write a function of your own that calls it."
            )
        return ""

    def _is_dataset(self, found: Any) -> bool:
        return inspect.isclass(found) and issubclass(found, load(self.base))


def _may_be_called(found: Any, module: ModuleType) -> bool:
    """Whether a function or class is a user's own, or stands among data sets of PyTorch."""
    source = sys.modules.get(found.__module__, module)
    parts = set(FilePath(getattr(source, "__file__", None) or "").parts)
    is_of_python = source.__name__.partition(".")[0] in sys.stdlib_module_names
    if not is_of_python and parts and not INSTALLED & parts:
        return True
    pytorch = sys.modules.get("torch.utils.data")
    known = [x for x in vars(source).values() if inspect.isclass(x)]
    return pytorch is not None and any(issubclass(x, pytorch.Dataset) for x in known)


DATASETS = DatasetRegistry(
    "data set",
    {
        "digits": "nni_spos.data.sources.digits:Digits",
        "fashion_mnist": "nni_spos.data.sources.fashion_mnist:FashionMnist",
        "cifar10": "nni_spos.data.sources.cifar10:Cifar10",
        "image_folder": "nni_spos.data.sources.image_folder:ImageFolder",
        "csv": "nni_spos.data.sources.csv_file:CsvFile",
        "segmentation_folder": "nni_spos.data.sources.segmentation_folder:SegmentationFolder",
    },
    group="nni_spos.datasets",
    base="nni_spos.data:Dataset",
)
"""Data sets by the name that recipes use: classes derived from `nni_spos.data.Dataset`."""
