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
from pathlib import Path as FilePath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nni_spos.errors import CheckpointError, FileWarning
from nni_spos.files import previous, replace_atomically, write_atomically
from nni_spos.values import expands_beyond, plain_parts

MAX_VALUES = 10_000_000
"""Values in a file, tensors apart from their numbers; a checkpoint has some thousands."""

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
        content = torch.load(file, map_location="cpu", weights_only=True)
        if expands_beyond(content, MAX_VALUES, plain_parts):
            raise ValueError("it contains itself, or too many values")
        return content
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
    """Refuse what PyTorch reads but does not write: older formats, and packed parts.

    Before version 2.6 PyTorch ran code in an archive of the oldest format in spite of
    `weights_only`, and it unpacks whatever is packed.
    """
    size = os.path.getsize(file)
    with zipfile.ZipFile(file) as archive:
        parts, comment = archive.infolist(), archive.comment
    if any(x.compress_type != zipfile.ZIP_STORED for x in parts):
        raise ValueError("it is packed")
    if sum(x.file_size for x in parts) > size:
        raise ValueError("it says that it is larger than it is")
    _check_seal(file, comment)


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
