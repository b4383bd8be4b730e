"""Files: written so that a reader, or a crash, never sees half of one; read whatever is in them."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, BinaryIO

from nni_spos.errors import SposError

MAX_JSON_BYTES = 64 << 20
"""Largest JSON file that is read; a cost table with the most entries has a third of it."""


def write_atomically(file: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> FilePath:
    """Call `write` on a temporary file beside `file`, then rename it to `file`.

    Parameters
    ----------
    file
        Final name; missing parent folders are made.
    write
        Receives the open binary file.

    Returns
    -------
    The final name. On any error the temporary file is removed and `file` is as it was.
    """
    target = FilePath(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes private files; results are not secret
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return target


def write_text(file: str | os.PathLike[str], text: str) -> FilePath:
    """Write lines of text, atomically."""
    return write_atomically(file, lambda stream: stream.write(f"{text}\n".encode()))


def write_json(file: str | os.PathLike[str], content: Any) -> FilePath:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused."""
    return write_text(file, json.dumps(content, indent=2, allow_nan=False))


def read_json(file: str | os.PathLike[str], error: type[SposError]) -> Any:
    """Read JSON from `file`; anything wrong is raised as `error` with the file's name."""
    text = read_text(file, error, MAX_JSON_BYTES)
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except (ValueError, RecursionError) as problem:
        raise error(f"{file}: is not valid JSON ({problem}).") from None


def read_text(file: str | os.PathLike[str], error: type[SposError], max_bytes: int) -> str:
    """Read a text in UTF-8.

    Parameters
    ----------
    file
        A file, or a link to one; what never ends, such as a device or a pipe, is refused.
    error
        What is raised, with the file's name, if it cannot be read.
    max_bytes
        How large the file may be.
    """
    try:
        found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{file}: cannot be read (it is not a file).")
        if found.st_size > max_bytes:
            raise error(f"{file}: has {found.st_size} bytes; more than {max_bytes} are not read.")
        return FilePath(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{file}: no such file.") from None
    except OSError as problem:
        raise error(f"{file}: cannot be read ({problem.strerror}).") from None
    except ValueError as problem:  # bytes that are no text, or a zero in the name
        raise error(f"{file}: cannot be read ({problem}).") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is there twice, readers differ in which they take."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r:.80} is there twice")
    return content
