"""Files with tensors in them: written atomically, loaded without executing anything.

They are PyTorch's archives with a comment at the end: a version, and the hash of all before it.
PyTorch does not look at the check sums in its archives, so a damaged weight would be taken for a
weight. Archives without the comment were written before there was one, and are read without.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files import previous, replace_atomically, write_atomically
from nni_spos.pickled_values import check_pickle

MAX_PARTS = 100_000
"""Of an archive: one for each storage, and a few more."""

MAX_PICKLE = 64 << 20
"""Bytes of the part that says what the storages belong to."""

PART_BYTES = 1024
"""What an archive takes for a part beside its content, at most on average."""

SEAL = b"nni_spos 1 sha256 "
"""How the comment begins: its version, and the kind of the hash that follows."""

_LENGTH = struct.Struct("<H")
"""The last field of an archive before its comment: the length of it."""


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
    try:
        return load_undamaged(file, hint)
    except CheckpointError as problem:
        before = previous(file)
        if not (os.path.lexists(file) and before.is_file()):
            raise
        try:
            content = load_undamaged(before)
        except CheckpointError:
            raise CheckpointError(f"{problem} Nor can {before.name}, which it replaced.") from None
        text = f"{problem} Using {before.name}, which it replaced."
        warnings.warn(text, FileWarning, stacklevel=2)
        return content


def load_undamaged(file: str | os.PathLike[str], hint: str = "") -> Any:
    """As `load_tensors`, but this file or none. Raises CheckpointError."""
    try:
        _check_archive(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such checkpoint. {hint}".rstrip()) from None
    except Exception as problem:  # torch.load fails in many ways on files that are not its own
        words = str(problem).split()
        reason = " ".join(words[:12]) or type(problem).__name__
        raise CheckpointError(f"{file}: cannot be loaded safely ({reason}).") from None


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


def _check_archive(file: str | os.PathLike[str]) -> None:
    """Refuse what PyTorch reads but does not write, and what would take too much.

    Before version 2.6 PyTorch ran code in an archive of the oldest format in spite of
    `weights_only`, and it unpacks whatever is packed.
    """
    with open(file, "rb") as stream:
        if stream.read(4) != b"PK\3\4":  # else PyTorch takes it for one of its older formats
            raise ValueError("it is no archive")
        stream.seek(0)
        content, size_of = _read_pickle(stream)
    with zipfile.ZipFile(file) as archive:
        parts, comment = archive.infolist(), archive.comment
    if any(x.compress_type != zipfile.ZIP_STORED for x in parts):
        raise ValueError("it is packed")
    _check_seal(file, comment)
    check_pickle(content, size_of)


def _read_pickle(stream: BinaryIO) -> tuple[bytes, Callable[[str], int | None]]:
    """Return the pickle of an archive and the sizes of its storages, as PyTorch will find them.

    Two readers can find different things in one archive, hence PyTorch's own.
    """
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
    stream.seek(-_LENGTH.size, os.SEEK_END)
    stream.write(_LENGTH.pack(len(comment)) + comment)


def _check_seal(file: str | os.PathLike[str], comment: bytes) -> None:
    """Compare the hash in an archive's comment with its content. Raises ValueError."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        left = os.fstat(stream.fileno()).st_size - len(comment) - _LENGTH.size
        while left > 0 and (block := stream.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        length = stream.read(_LENGTH.size)
    if length == _LENGTH.pack(0):
        return  # written before there were hashes
    digest.update(_LENGTH.pack(0))  # as it was when the hash was made
    expected = SEAL + digest.hexdigest().encode()
    if (length, comment) != (_LENGTH.pack(len(expected)), expected):
        raise ValueError("its hash is another one")
