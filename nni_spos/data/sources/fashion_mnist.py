"""Fashion-MNIST, in the files of MNIST's format: Debian's, torchvision's or downloaded ones."""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from nni_spos.data.sources.downloads import (
    DOWNLOAD,
    dataset_root,
    download_lock,
    explained_download,
)
from nni_spos.errors import DataError, text_of
from nni_spos.recipe.dataset import Dataset, DatasetSpec
from nni_spos.recipe.image_digest import digest_packed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DEBIAN = FilePath("/usr/share/datasets/fashion-mnist")
"""Of Debian's package dataset-fashion-mnist."""


@dataclass(frozen=True)
class FashionMnist(Dataset):
    """60,000 and 10,000 grey images of clothes, of 28 x 28 pixels, in 10 classes."""

    ignored = ()

    def spec(self) -> DatasetSpec:
        """Say what is known without opening an image."""
        return DatasetSpec(self.name, 10, 1, 28, 28, (0.2860,), (0.3530,), "crop_flip")

    def class_names(self) -> list[str]:
        """Return the names of the classes."""
        return ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker",
                "bag", "ankle boot"]  # fmt: skip

    def open_training_set(self) -> Any:
        """Return images and labels. Raises DataError."""
        return self._open("train")

    def open_test_set(self) -> Any:
        """Return images and labels. Raises DataError."""
        return self._open("t10k")

    def digest_training_images(self) -> str | None:
        """Return a digest of the check sums of the two files."""
        return self._digest("train")

    def digest_test_images(self) -> str | None:
        """Return a digest of the check sums of the two files."""
        return self._digest("t10k")

    def _digest(self, prefix: str) -> str | None:
        debian = [DEBIAN] if self.settings.root is None else []
        places = [*debian, dataset_root(self.settings)]
        found = next(filter(None, (_find(x, _names(prefix)) for x in places)), None)
        return None if found is None else digest_packed(found)

    def _open(self, prefix: str) -> Any:
        import numpy as np
        from torchvision.datasets import FashionMNIST

        settings, names = self.settings, _names(prefix)
        files = None
        searched = []
        if settings.root is None and DEBIAN.is_dir():
            searched.append(DEBIAN)
            files = _find(DEBIAN, names)
        if files is None:
            root = dataset_root(settings)
            searched += [root, root / "FashionMNIST" / "raw"]
            with download_lock(root) if settings.download else contextlib.nullcontext():
                files = _find(root, names)
                if files is None and settings.download:
                    with explained_download(self.name, root):
                        FashionMNIST(root, download=True)
                    files = _find(root, names)
        if files is None:
            raise DataError(
                f"fashion_mnist: {names[0]}.gz and {names[1]}.gz are not in "
                f"{' or '.join(map(str, searched))}. {DOWNLOAD}, or install Debian's package "
                "dataset-fashion-mnist."
            )
        images, labels = _read_idx(files[0], 3), _read_idx(files[1], 1)
        fit = 0 < len(images) == len(labels) and images.shape[1:] == (28, 28)
        if not fit or labels.max() >= 10:
            raise DataError(
                f"fashion_mnist: {files[0]} and {files[1].name} do not belong together: images of "
                f"shape {images.shape} and {len(labels)} labels. Delete them. {DOWNLOAD}."
            )
        return images[:, None], labels.astype(np.int64)


def _names(prefix: str) -> tuple[str, str]:
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _find(root: FilePath, names: tuple[str, str]) -> tuple[FilePath, FilePath] | None:
    """Find the image and the label file: packed or not, plain or in torchvision's folders."""
    for folder in (root, root / "FashionMNIST" / "raw"):
        for suffix in (".gz", ""):
            images, labels = (folder / (name + suffix) for name in names)
            if images.is_file() and labels.is_file():
                return images, labels
    return None


def _read_idx(file: FilePath, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """Read an array in the format of MNIST's files: type, dimensions, bytes."""
    import numpy as np

    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content: bytes = stream.read()
        zeros, kind, dimensions, *shape = struct.unpack_from(f">HBB{num_dimensions}I", content)
        size = math.prod(shape)
        start = 4 + 4 * num_dimensions
        if (zeros, kind, dimensions) != (0, 8, num_dimensions) or len(content) != start + size:
            raise ValueError("unexpected header or length")
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as problem:
        raise DataError(
            f"fashion_mnist: {file} is damaged ({text_of(problem)}). Delete it. {DOWNLOAD}, or "
            "install Debian's package dataset-fashion-mnist again."
        ) from None
    return np.frombuffer(bytearray(content), np.uint8, offset=start).reshape(shape)
