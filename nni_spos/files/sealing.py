"""Records with their own hash, so that damage is noticed and not read as content.

A record is a line of JSON. One without a hash was written before there were hashes. Whole files
with tensors have a hash too, see `nni_spos.files.tensors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASH = "sha256"
"""Key of a record's hash."""

DIGITS = 16
"""Hexadecimal digits of a record's hash: enough against damage, not against forgers."""


def seal_record(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of JSON with its hash.

    Examples
    --------
    >>> line = seal_record({"top1": 71.5})
    >>> open_record(line)
    ({'top1': 71.5}, True)
    >>> open_record(line.replace(b"7", b"9", 1))
    Traceback (most recent call last):
    ValueError: its hash is another one
    """
    return (json.dumps({**record, HASH: _digest(record)}, allow_nan=False) + "\n").encode()


def open_record(line: bytes) -> tuple[Any, bool]:
    """Return what is in a line, without its hash, and whether it had one.

    Raises
    ------
    ValueError
        The hash is that of another record, or the line is not JSON.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or HASH not in record:
        return record, False
    found = record.pop(HASH)
    if found != _digest(record):
        raise ValueError("its hash is another one")
    return record, True


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:DIGITS]
