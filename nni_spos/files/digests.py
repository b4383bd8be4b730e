"""Digests of files and of values: what tells one content from another, whatever its name."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path as FilePath
from typing import Any, BinaryIO

BLOCK = 1 << 20
"""Bytes that are read at a time."""

DIGITS = 16
"""Hexadecimal digits of a short digest: enough to tell contents apart, not against forgers."""

_TENSOR = re.compile(r"[^/]+/data/(\d+)")
"""Name of the values of a tensor in PyTorch's archives, after that of the archive itself."""

_UNREADABLE = (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError)

_weights: dict[tuple[str, int, int, int], str] = {}
"""Digests of weights by file, size, time of change and inode."""


def digest_file(file: FilePath) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(file, "rb") as stream:
        return _digest_stream(stream)


def _digest_stream(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := stream.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def digest_content(content: Any) -> str:
    """Return `DIGITS` digits that stand for JSON values; others count as their text."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def hash_start(stream: BinaryIO, num_bytes: int) -> hashlib._Hash:
    """Return the SHA-256 of the first bytes of a file, all of it if it has fewer.

    Parameters
    ----------
    stream
        Of the file; it is then behind these bytes.
    num_bytes
        How many count.
    """
    digest = hashlib.sha256()
    stream.seek(0)
    while num_bytes > 0 and (block := stream.read(min(num_bytes, BLOCK))):
        digest.update(block)
        num_bytes -= len(block)
    return digest


def digest_weights(file: FilePath) -> str | None:
    """Return `DIGITS` digits that stand for the values of all tensors in a file; None without it.

    Only these count: what else a checkpoint says, such as how long a training took, differs
    between two trainings with the same weights. Nothing is unpickled, and PyTorch is not needed.
    Whoever writes a checkpoint makes a new file, so it is read once and then known by its stamp.
    """
    try:
        with open(file, "rb") as stream:
            found = os.fstat(stream.fileno())
            key = (os.path.abspath(file), found.st_size, found.st_mtime_ns, found.st_ino)
            if key not in _weights:
                _weights[key] = digest_open_weights(stream)
            return _weights[key]
    except FileNotFoundError:
        return None


def digest_open_weights(stream: BinaryIO) -> str:
    """As `digest_weights`, of a file that is open, whatever has its name by now."""
    digest = hashlib.sha256()
    num_tensors = 0
    try:
        with zipfile.ZipFile(stream) as archive:
            for part in sorted(filter(_number, archive.infolist()), key=_number):
                num_tensors += 1
                digest.update(b"%d %d\n" % (_number(part), part.file_size))
                with archive.open(part) as content:
                    while block := content.read(BLOCK):
                        digest.update(block)
    except _UNREADABLE:
        num_tensors = 0
    if num_tensors:
        return digest.hexdigest()[:DIGITS]
    stream.seek(0)  # what is damaged, or not an archive, is known by all its bytes
    return _digest_stream(stream)[:DIGITS]


def _number(part: zipfile.ZipInfo) -> int:
    """Return the number of a tensor, from 1 on; 0 for another part of an archive."""
    match = _TENSOR.fullmatch(part.filename)
    return 0 if match is None else int(match[1]) + 1
