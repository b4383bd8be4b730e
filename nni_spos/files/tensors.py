"""Files with tensors in them: written atomically, loaded without executing anything.

They are PyTorch's archives with their hash at the end, see `nni_spos.files.archives`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files.archives import LENGTH, SEAL, check_archive, reason_of
from nni_spos.files.atomic import previous, replace_atomically, write_atomically
from nni_spos.files.pickled_values import check_pickle

MAX_PARTS = 100_000
"""Of an archive: one for each storage, and a few more."""

MAX_PICKLE = 64 << 20
"""Bytes of the part that says what the storages belong to."""

PART_BYTES = 1024
"""What an archive takes for a part beside its content, at most on average."""

Found = TypeVar("Found")


def save_tensors(file: str | os.PathLike[str], content: Any) -> FilePath:
    """Write tensors and plain values; a crash leaves the file that was there before."""
    return write_atomically(file, lambda stream: _write(stream, content))


def replace_tensors(file: str | os.PathLike[str], content: Any) -> FilePath:
    """As `save_tensors`; the file that was there before stays, for `load_tensors`, beside it."""
    return replace_atomically(file, lambda stream: _write(stream, content))


def load_tensors(file: str | os.PathLike[str], hint: str = "") -> Any:
    """Read what was written, onto the CPU; nothing in the file is executed.

    The memory that it takes is about the file's size: packed content, which could be a thousand
    times larger, and values that stand for each other again and again are refused.

    Parameters
    ----------
    file
        What to read.
    hint
        What to do if it is not there.

    Warns
    -----
    FileWarning
        The file is damaged, and the one that it replaced is read instead.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or would run code, and so does the one that it replaced.
    """
    return inspect_tensors(file, lambda stream: None, hint)[0]


def inspect_tensors(
    file: str | os.PathLike[str], inspect: Callable[[BinaryIO], Found], hint: str = ""
) -> tuple[Any, Found]:
    """As `load_tensors`, with what `inspect` finds in the very file that was read.

    Nobody can put another file in its place, or write into it, between the two.
    """
    try:
        return _read(file, inspect, hint)
    except CheckpointError as problem:
        before = previous(file)
        if not (os.path.lexists(file) and before.is_file()):
            raise
        try:
            found = _read(before, inspect)
        except CheckpointError:
            raise CheckpointError(f"{problem} Nor can {before.name}, which it replaced.") from None
        text = f"{problem} Using {before.name}, which it replaced."
        warnings.warn(text, FileWarning, stacklevel=3)
        return found


def load_undamaged(file: str | os.PathLike[str], hint: str = "") -> Any:
    """As `load_tensors`, but this file or none. Raises CheckpointError."""
    return _read(file, lambda stream: None, hint)[0]


def _read(
    file: str | os.PathLike[str], inspect: Callable[[BinaryIO], Found], hint: str = ""
) -> tuple[Any, Found]:
    try:
        with open(file, "rb") as stream:
            before = _stamp(stream)
            pickle, size_of = _read_pickle(stream)
            check_archive(stream)
            check_pickle(pickle, size_of)
            stream.seek(0)
            content = torch.load(stream, map_location="cpu", weights_only=True)
            found = inspect(stream)
            if _stamp(stream) != before:
                raise ValueError("it was written to while it was read")
        return content, found
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such checkpoint. {hint}".rstrip()) from None
    except Exception as problem:  # torch.load fails in many ways on files that are not its own
        reason = reason_of(problem)
        raise CheckpointError(f"{file}: cannot be loaded safely ({reason}).") from None


def name_not_finite(network: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Return the name of the first trained weight that is not finite, or ``""``.

    Buffers may hold what they like: a mask is often infinite.

    Parameters
    ----------
    network
        Says which of the weights are trained.
    weights
        Its state dict, or another one of the same names.
    """
    names = (name for name, _ in network.named_parameters())
    return next((x for x in names if x in weights and not weights[x].isfinite().all()), "")


def _stamp(stream: BinaryIO) -> tuple[int, int]:
    found = os.fstat(stream.fileno())
    return found.st_size, found.st_mtime_ns


def is_loadable(value: Any, like: Tensor) -> bool:
    """Whether a value from a file can be copied into a tensor: the same shape, kind and layout."""
    return (
        isinstance(value, Tensor)
        and value.shape == like.shape
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_complex()
        and value.is_floating_point() == like.is_floating_point()
    )


def _read_pickle(stream: BinaryIO) -> tuple[bytes, Callable[[str], int | None]]:
    """Return the pickle of an archive and the sizes of its storages, as PyTorch will find them.

    Two readers can find different things in one archive, hence PyTorch's own.

    Raises
    ------
    ValueError, RuntimeError
        It is no archive, or would take more memory than it has bytes.
    """
    if stream.read(4) != b"PK\3\4":  # else PyTorch takes it for one of its older formats
        raise ValueError("it is no archive")
    stream.seek(0)
    size = os.fstat(stream.fileno()).st_size
    reader = torch._C.PyTorchFileReader(stream)
    names = reader.get_all_records()
    if len(names) > MAX_PARTS or len(set(names)) < len(names):
        raise ValueError("it has too many parts, or one twice")
    sizes = {name: reader.get_record_size(name) for name in names}
    if (total := sum(sizes.values())) > size:
        raise ValueError("it says that it is larger than it is")
    if size - total > (1 << 20) + PART_BYTES * len(names):
        raise ValueError("it has more in it than its parts")
    if sizes.get("data.pkl", MAX_PICKLE + 1) > MAX_PICKLE:
        raise ValueError("it has no pickle, or one that is too large")
    return reader.get_record("data.pkl"), lambda key: sizes.get(f"data/{key}")


class _Hashed:
    """A stream that PyTorch writes to: it hashes, and keeps what the file system refused.

    PyTorch reports that as an error of its own, which hides the reason.
    """

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.hash = hashlib.sha256()
        self.problem: OSError | None = None

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        try:
            return self._stream.write(data)
        except OSError as problem:
            self.problem = problem
            raise

    def flush(self) -> None:
        self._stream.flush()


def _write(stream: BinaryIO, content: Any) -> None:
    hashed = _Hashed(stream)
    try:
        torch.save(content, hashed)
    except RuntimeError:
        if hashed.problem is not None:
            raise hashed.problem from None
        raise
    comment = SEAL + hashed.hash.hexdigest().encode()
    stream.seek(-LENGTH.size, os.SEEK_END)
    stream.write(LENGTH.pack(len(comment)) + comment)
