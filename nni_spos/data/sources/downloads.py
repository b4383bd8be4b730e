"""Where torchvision's data sets are, and how they are downloaded."""

from __future__ import annotations

import contextlib
import os
import sys
import tarfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path as FilePath

from nni_spos.errors import DataError, text_of
from nni_spos.files.locks import exclusive
from nni_spos.recipe.data_settings import DataSettings

DOWNLOAD = "Set 'download: true' in the recipe's data section"


def dataset_root(data: DataSettings) -> FilePath:
    """Return where torchvision's data sets are: the recipe's root, else the user's cache."""
    if data.root is not None:
        return FilePath(data.root)
    cache = os.environ.get("XDG_CACHE_HOME") or FilePath.home() / ".cache"
    return FilePath(cache) / "nni_spos" / "datasets"


@contextlib.contextmanager
def download_lock(root: FilePath) -> Iterator[None]:
    """Let one process at a time look for files and download them: trials start together."""
    with contextlib.ExitStack() as stack:
        # Without it where the folder cannot be written, or has no locks, or the lock is another
        # user's: nobody is kept from images that are there.
        with contextlib.suppress(OSError):
            refusal = DataError(f"{root}: another process is downloading into it.")
            stack.enter_context(exclusive(root / ".download.lock", timeout=-1, refusal=refusal))
        yield


@contextlib.contextmanager
def explained_download(name: str, root: FilePath) -> Iterator[None]:
    """Turn whatever a failed download raises into one line; keep standard output clean."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (
        OSError,
        EOFError,
        RuntimeError,
        HTTPException,
        tarfile.TarError,
        zlib.error,
    ) as problem:
        raise DataError(
            f"{name}: could not be downloaded to {root} ({text_of(problem)}). Check the network "
            "and the folder, or set 'root' in the recipe's data section to a folder with the files."
        ) from None
