"""PyTorch's archives as files: are they whole, and is nothing in them packed? Without PyTorch.

What is written here ends with a comment: a version, and the hash of all before it. PyTorch does
not look at the check sums in its archives, so a damaged weight would be taken for a weight.
Archives without the comment are read without.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

from nni_spos.files.digests import hash_start

SEAL = b"nni_spos 1 sha256 "
"""How the comment begins: its version, and the kind of the hash that follows."""

LENGTH = struct.Struct("<H")
"""The last field of an archive before its comment: the length of it."""


def check_archive(stream: BinaryIO) -> None:
    """Refuse what PyTorch reads but does not write, and what was changed since it was written.

    Before version 2.6 PyTorch ran code in an archive of the oldest format in spite of
    `weights_only`, and it unpacks whatever is packed.

    Raises
    ------
    ValueError, zipfile.BadZipFile and the like
        It is no archive, of an older format, packed, or damaged.
    """
    size = os.fstat(stream.fileno()).st_size
    with zipfile.ZipFile(stream) as archive:
        parts, comment = archive.infolist(), archive.comment
    if any(x.compress_type != zipfile.ZIP_STORED for x in parts):
        raise ValueError("it is packed")
    if sum(x.file_size for x in parts) > size:
        raise ValueError("it says that it is larger than it is")
    _check_seal(stream, size, comment)


def reason_of(problem: Exception) -> str:
    """Return why an archive cannot be read, for the middle of a message."""
    return " ".join(str(problem).split()[:12]) or type(problem).__name__


def _check_seal(stream: BinaryIO, size: int, comment: bytes) -> None:
    """Compare the hash in an archive's comment with its content. Raises ValueError."""
    digest = hash_start(stream, size - len(comment) - LENGTH.size)
    length = stream.read(LENGTH.size)
    if length == LENGTH.pack(0):
        return  # written without a hash
    digest.update(LENGTH.pack(0))  # as it was when the hash was made
    expected = SEAL + digest.hexdigest().encode()
    if (length, comment) != (LENGTH.pack(len(expected)), expected):
        raise ValueError("its hash is another one")
