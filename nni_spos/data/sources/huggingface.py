"""Data sets of the Hugging Face Hub, or folders of theirs: ``huggingface:NAME_OR_FOLDER``."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from nni_spos.data.parts import DatasetParts
from nni_spos.data.sources.columns import COLUMNS, as_columns
from nni_spos.data.sources.map_style import MapStyle
from nni_spos.errors import DataError, RecipeError, text_of, unknown
from nni_spos.files.digests import digest_content
from nni_spos.recipe.dataset import UNKNOWN
from nni_spos.recipe.settings import TEXT, optional, setting

IMAGE, CLASS = "Image", "ClassLabel"
"""Types of columns."""


@dataclass(frozen=True)
class HuggingFace(MapStyle):
    """A data set of the package datasets: a folder that save_to_disk wrote, or a name of the Hub.

    Give at most one of `label`, `labels` and `values`.

    Parameters
    ----------
    image
        Column of the images; by default the first one that has images.
    label
        Column of the class of each image; by default the first one of classes.
    labels
        Column of a list of 0 and 1, one for each label; or a list of columns of them.
    values
        Column of a number, or of a list of numbers, to predict; or a list of columns.
    groups
        Column of what must not be in two splits, such as the patient.
    subset
        Of a data set of the Hub that has some.
    revision
        Of a data set of the Hub, such as the hash of a commit.
    split
        Name of the part to train with.
    validation_split
        Name of the part that a search scores with; null: images of the training set are held out.
    test_split
        Name of the part for the final test; by default test, if there is one.
    """

    image: str | None = setting(optional(TEXT), None)
    label: str | None = setting(optional(TEXT), None)
    labels: str | tuple[str, ...] | None = setting(COLUMNS, None, as_columns)
    values: str | tuple[str, ...] | None = setting(COLUMNS, None, as_columns)
    groups: str | None = setting(optional(TEXT), None)
    subset: str | None = setting(optional(TEXT), None)
    revision: str | None = setting(optional(TEXT), None)
    split: str = setting(TEXT, "train")
    validation_split: str | None = setting(optional(TEXT), None)
    test_split: str | None = setting(optional(TEXT), None)

    ignored = ()

    def __post_init__(self) -> None:
        given = [x for x in ("label", "labels", "values") if getattr(self, x) is not None]
        if len(given) > 1:
            raise RecipeError(
                f"data set {self.name}: needs one of label, labels and values, got "
                f"{' and '.join(given)}."
            )

    def open_parts(self) -> DatasetParts:
        """Load the data set. Raises DataError."""
        found = self._load()
        names = list(found)
        wanted = {"validation": self.validation_split, "test": self.test_split}
        for name in (self.split, *filter(None, wanted.values())):
            if name not in names:
                raise DataError(f"data set {self.name}: {unknown('split', name, names)}")
        if (
            wanted["test"] is None
            and "test" in names
            and "test" not in (self.split, wanted["test"])
        ):
            wanted["test"] = "test"
        others = {
            part: functools.partial(self._rows, found[name])
            for part, name in wanted.items()
            if name is not None
        }
        return DatasetParts(self._rows(found[self.split]), **others)

    def digest_training_images(self) -> str | None:
        """Return what the folder says of its contents; of a name of the Hub a revision says it."""
        folder = self._folder
        if not folder.is_dir():
            return None if self.revision is not None else UNKNOWN
        states = []
        for file in sorted(folder.rglob("state.json")):
            try:
                state = json.loads(file.read_text(encoding="utf-8"))
                states.append([str(file.parent.relative_to(folder)), state["_fingerprint"]])
            except (OSError, ValueError, KeyError, TypeError):
                return UNKNOWN
        return digest_content(states)

    def digest_test_images(self) -> str | None:
        """Return the same: it is of all parts."""
        return self.digest_training_images()

    @property
    def _source(self) -> str:
        return self.name.partition(":")[2]

    @property
    def _folder(self) -> FilePath:
        return FilePath(self.settings.locate(self._source))

    def _load(self) -> Any:
        """Return data sets by the names of their splits."""
        try:
            import datasets
        except ImportError as problem:
            raise DataError(
                f"data set {self.name}: needs the package datasets ({problem}): pip install "
                "'nni_spos[huggingface]'."
            ) from None
        folder = self._folder
        if not folder.is_dir() and not self.settings.download:
            raise DataError(
                f"data set {self.name}: there is no folder {folder}. If this is a name of the "
                "Hugging Face Hub, set 'download: true' in the recipe's data section."
            )
        try:
            if folder.is_dir():
                found = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(
                    self._source,
                    self.subset,
                    revision=self.revision,
                    cache_dir=self.settings.root,
                )
        except Exception as problem:  # of many packages
            where = folder if folder.is_dir() else "the Hugging Face Hub"
            raise DataError(
                f"data set {self.name}: cannot be loaded from {where} ({text_of(problem)}). Give a "
                "folder that save_to_disk wrote, or a name of the Hub and the network."
            ) from None
        return found if isinstance(found, dict) else {self.split: found}

    def _rows(self, found: Any) -> Rows:
        columns = dict(found.features)
        image = self.image or _first(columns, IMAGE)
        label = None
        targets = self.label or self.labels or self.values
        if targets is None:
            targets = label = _first(columns, CLASS) or ("label" if "label" in columns else None)
        if image is None or targets is None:
            missing, key = ("images", "image") if image is None else ("classes", "label")
            raise DataError(
                f"data set {self.name}: no column is known to have {missing}. Set '{key}' to one "
                f"of {', '.join(columns)}."
            )
        names = [targets] if isinstance(targets, str) else list(targets)
        for name in filter(None, (image, *names, self.groups)):
            if name not in columns:
                raise DataError(f"data set {self.name}: {unknown('column', name, columns)}")
        is_class = self.label is not None or label is not None
        return Rows(found, image, names, self.groups, is_class=is_class)


class Rows:
    """The rows of a data set of the package datasets as samples.

    Parameters
    ----------
    rows
        As that package has them.
    image, targets, groups
        Names of columns.
    is_class
        Whether the target is a class; if not, it is made float.
    """

    def __init__(
        self, rows: Any, image: str, targets: Sequence[str], groups: str | None, *, is_class: bool
    ):
        self._rows = rows
        self._image = image
        self._columns = list(targets)
        self._is_class = is_class
        values = rows.select_columns(self._columns)
        self.targets = [self._target(row) for row in values]
        if groups is not None:
            self.groups = list(rows[groups])
        names = getattr(rows.features[self._columns[0]], "names", None)
        if is_class and names is not None:
            self.classes = list(names)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self._rows[index]
        return row[self._image], self._target(row)

    def _target(self, row: Any) -> Any:
        values = [row[x] for x in self._columns]
        if self._is_class:
            return values[0]
        first = values[0]
        numbers = first if len(values) == 1 and isinstance(first, list) else values
        return [float("nan") if x is None else float(x) for x in numbers]


def _first(columns: dict[str, Any], kind: str) -> str | None:
    return next((x for x, feature in columns.items() if type(feature).__name__ == kind), None)


def find_class(name: str) -> type[HuggingFace]:
    """Return the data set that a name of the Hub or a folder stands for: nothing is loaded."""
    return HuggingFace
