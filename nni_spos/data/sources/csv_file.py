"""Images that a CSV file lists, with their classes, labels or values."""

from __future__ import annotations

import csv
import functools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.data.sources.columns import COLUMNS, as_columns
from nni_spos.data.sources.files import decoded_as
from nni_spos.errors import DataError, RecipeError, text_of, unknown
from nni_spos.files.digests import digest_content
from nni_spos.recipe.dataset import Dataset, DatasetSpec
from nni_spos.recipe.image_digest import digest_files
from nni_spos.recipe.settings import FILE, TEXT, optional, setting
from nni_spos.values import shown

if TYPE_CHECKING:
    from nni_spos.data.stores import ListedFiles

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a column of splits may have, and what it means."""


@dataclass(frozen=True)
class Row:
    """A line of the file.

    Parameters
    ----------
    line
        Its number.
    image
        Name of the file of the image.
    target
        What is to be predicted, as the file has it: one text for each column.
    split
        A value of `SPLITS`.
    group
        Its group; "" without groups.
    """

    line: int
    image: str
    target: tuple[str, ...]
    split: str
    group: str


@dataclass(frozen=True)
class CsvFile(Dataset):
    """Images that a CSV file lists; its first line has the names of the columns.

    Give one of `label`, `labels` and `values`.

    Parameters
    ----------
    file
        The CSV file, relative to the recipe.
    image
        Column of the names of image files, which are relative to `root`, or to the CSV file's
        folder.
    label
        Column of the class of each image: a name, or a number.
    labels
        Columns of 0 and 1, one for each label; or one column of names with `separator` between.
    values
        Columns of numbers to predict.
    split
        Column that says train, val or test for each image.
    groups
        Column of what must not be in two splits, such as the patient, the camera or the video.
    separator
        Stands between the names in the column `labels`.
    delimiter
        Stands between the columns.
    """

    file: str = setting(FILE)
    image: str = setting(TEXT, "image")
    label: str | None = setting(optional(TEXT), None)
    labels: str | tuple[str, ...] | None = setting(COLUMNS, None, as_columns)
    values: str | tuple[str, ...] | None = setting(COLUMNS, None, as_columns)
    split: str | None = setting(optional(TEXT), None)
    groups: str | None = setting(optional(TEXT), None)
    separator: str = setting(TEXT, ";")
    delimiter: str = setting(TEXT, ",")

    places = ("file",)

    def __post_init__(self) -> None:
        given = [x for x in ("label", "labels", "values") if getattr(self, x) is not None]
        if len(given) != 1:
            raise RecipeError(
                f"data set csv: needs one of label, labels and values, got "
                f"{' and '.join(given) or 'none'}."
            )

    @property
    def target(self) -> str:
        """What a network is to predict; see `DatasetSpec`."""
        if self.label is not None:
            return "class"
        return "labels" if self.labels is not None else "values"

    def spec(self) -> DatasetSpec:
        """Say what the file says, without opening an image."""
        return DatasetSpec(
            name=self.name,
            num_classes=self._num_classes() if self._file.exists() else self._given_classes(),
            **decoded_as(self.settings),
            native_size=None,
            image_size=224,
            # A crop or a flip would move what values are of, such as points.
            augmentation="none" if self.target == "values" else "imagenet",
            crop_pct=224 / 256,
            target=self.target,
        )

    def open_training_set(self) -> ListedFiles:
        """Open the images of the training set. Raises DataError."""
        self._refuse_twice()
        found = self._open("train")
        if found is None:
            raise DataError(f"{self._file}: column '{self.split}' has no image for 'train'.")
        return found

    def open_validation_set(self) -> ListedFiles | None:
        """Open the images that the file has for validation, if it says so. Raises DataError."""
        return self._open("validation")

    def open_test_set(self) -> ListedFiles | None:
        """Open the images that the file has for the test, if it says so. Raises DataError."""
        return self._open("test")

    @property
    def has_test_set(self) -> bool:
        """Whether the file has images for the final test."""
        return any(x.split == "test" for x in self._rows())

    def missing(self) -> list[str]:
        """Return what is missing, a sentence each."""
        if not self._file.exists():
            return [f"there is no file {self._file} yet. Write it before you train."]
        rows = self._rows()
        absent = [x.image for x in rows if not (self._folder / x.image).exists()]
        if absent:
            return [
                f"{len(absent)} of {len(rows)} images are not in {self._folder}, such as "
                f"{absent[0]}. Before you train, put them there."
            ]
        if self.settings.num_test is None and not self.has_test_set:
            return [
                "there are no test images. Before you retrain, set 'num_test', or name a column "
                "'split' that says which they are."
            ]
        return []

    def digest_training_images(self) -> str | None:
        """Return a digest of what the file says of them, and of the images."""
        return self._digest("train", "validation")

    def digest_test_images(self) -> str | None:
        """Return a digest of what the file says of them, and of the images."""
        return self._digest("test")

    @property
    def _targets(self) -> tuple[str, ...]:
        """Columns of what is to be predicted."""
        columns = self.label or self.labels or self.values or ()
        return (columns,) if isinstance(columns, str) else columns

    @property
    def _file(self) -> FilePath:
        return FilePath(self.settings.locate(self.file))

    @property
    def _folder(self) -> FilePath:
        root = self.settings.root
        return self._file.parent if root is None else FilePath(root)

    def _rows(self) -> Sequence[Row]:
        try:
            stamp = os.stat(self._file).st_mtime_ns
        except OSError as problem:
            raise DataError(
                f"{self._file}: {problem.strerror}. 'file' in the recipe's data section must be a "
                "CSV file, relative to the recipe."
            ) from None
        columns = (self.image, self._targets, self.split, self.groups)
        return _read(self._file, stamp, self.delimiter, *columns)

    def _digest(self, *splits: str) -> str | None:
        if not self._file.exists():
            return None
        rows = [x for x in self._rows() if x.split in splits]
        if not rows:
            return None
        said = [[x.image, x.target, x.split, x.group] for x in rows]
        return digest_content([said, digest_files(self._folder, [x.image for x in rows])])

    def class_names(self) -> list[str]:
        """Return the names of the classes or labels, or those of the columns."""
        if self.target == "values" or len(self._targets) > 1:
            return list(self._targets)
        return self._names()

    def _given_classes(self) -> int:
        return self.settings.num_classes or (len(self._targets) if self.target == "values" else 0)

    def _num_classes(self) -> int:
        if self.target == "class" and self.settings.num_classes is not None:
            return self.settings.num_classes
        if self.target == "values" or len(self._targets) > 1:
            return len(self._targets)
        return len(self._names())

    def _names(self) -> list[str]:
        """Return the names of the classes or labels, in the order of their numbers."""
        found = {x for row in self._rows() for x in self._named(row)}
        if all(x.isdecimal() for x in found):
            return sorted(found, key=int)
        return sorted(found)

    def _named(self, row: Row) -> list[str]:
        text = row.target[0]
        if self.target == "class":
            if not text:
                raise DataError(f"{self._file}, line {row.line}: '{self.label}' is empty.")
            return [text]
        return [x.strip() for x in text.split(self.separator) if x.strip()]

    def _refuse_twice(self) -> None:
        """Refuse an image that is there twice: it could be in two splits."""
        first: dict[str, int] = {}
        for row in self._rows():
            name = os.path.normpath(row.image)
            if first.setdefault(name, row.line) != row.line:
                raise DataError(
                    f"{self._file}, line {row.line}: {row.image} is in line {first[name]} too. "
                    "Keep one of them."
                )
        if self.groups is None or self.split is None:
            return
        splits: dict[str, Row] = {}
        for row in self._rows():
            other = splits.setdefault(row.group, row)
            if other.split != row.split:
                raise DataError(
                    f"{self._file}, line {row.line}: the group '{row.group}' is in {row.split}, "
                    f"but in {other.split} in line {other.line}. Images of a group must be in one."
                )

    def _open(self, split: str) -> ListedFiles | None:
        import numpy as np

        from nni_spos.data.stores import ListedFiles

        rows = [x for x in self._rows() if x.split == split]
        if not rows:
            return None
        targets = np.array(list(self._numbers(rows)))
        groups = np.array([x.group for x in rows]) if self.groups is not None else None
        kind = np.int64 if self.target == "class" else np.float32
        names = [x.image for x in rows]
        pixels = (self.spec().channels, self.settings.bits)
        return ListedFiles(self._folder, names, targets.astype(kind), groups, *pixels)

    def _numbers(self, rows: Sequence[Row]) -> Iterator[Any]:
        """Yield the target of each row as a number or numbers."""
        if self.target == "values" or len(self._targets) > 1:
            yield from ([self._number(row, i) for i in range(len(self._targets))] for row in rows)
            return
        names = self._names()
        # With their number given, numbers mean themselves: a class may have no image.
        is_number = all(x.isdecimal() for x in names) and self.settings.num_classes is not None
        positions = {x: int(x) if is_number else i for i, x in enumerate(names)}
        for row in rows:
            found = [positions[x] for x in self._named(row)]
            is_class = self.target == "class"
            yield found[0] if is_class else [float(i in found) for i in range(len(names))]

    def _number(self, row: Row, column: int) -> float:
        text, name = row.target[column], self._targets[column]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{self._file}, line {row.line}: '{name}' is {shown(text)}; must be a number."
            )
        if self.target == "labels" and value not in (0, 1):
            raise DataError(
                f"{self._file}, line {row.line}: '{name}' is {shown(text)}; must be 0 or 1."
            )
        return value


@functools.lru_cache(maxsize=4)
def _read(
    file: FilePath,
    stamp: int,
    delimiter: str,
    image: str,
    targets: tuple[str, ...],
    split: str | None,
    groups: str | None,
) -> tuple[Row, ...]:
    """Read the file; `stamp` is when it was changed."""
    if len(delimiter) != 1:
        raise DataError(f"delimiter: got {shown(delimiter)}; must be one character.")
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter=delimiter)
            columns = list(reader.fieldnames or ())
            for name in filter(None, (image, *targets, split, groups)):
                if name not in columns:
                    raise DataError(f"{file}: {unknown('column', name, columns)}")
            rows = [
                Row(
                    line=reader.line_num,
                    image=(row[image] or "").strip(),
                    target=tuple((row[x] or "").strip() for x in targets),
                    split=(row[split] or "").strip().lower() if split else "train",
                    group=(row[groups] or "").strip() if groups else "",
                )
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(f"{file}: cannot be read as CSV in UTF-8 ({text_of(problem)}).") from None
    return tuple(_checked(file, rows, image, groups))


def _checked(file: FilePath, rows: Sequence[Row], image: str, groups: str | None) -> Iterator[Row]:
    """Yield rows with what their splits mean. Raises DataError."""
    if not rows:
        raise DataError(f"{file}: has no images.")
    for row in rows:
        where = f"{file}, line {row.line}"
        if not row.image:
            raise DataError(f"{where}: '{image}' is empty.")
        if groups and not row.group:
            raise DataError(f"{where}: '{groups}' is empty.")
        if row.split not in SPLITS:
            raise DataError(f"{where}: {unknown('split', row.split, ('train', 'val', 'test'))}")
        yield Row(row.line, row.image, row.target, SPLITS[row.split], row.group)
